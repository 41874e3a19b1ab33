"""One connection of a browser or program: request after request, each judged by its own head.

What comes is handed on as it comes, once the head has been judged. Two bounds keep memory: a head of
64 KB, and what either side has not taken yet, which stops the other one. What neither comes nor is taken
at any pace ends (`look`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from runtools.platform.gateway.rousing import Waken
from runtools.platform.gateway.web import framing, visitor, way
from runtools.platform.gateway.web.admission import Wish, lasting
from runtools.platform.gateway.web.framing import BadBody, Framing
from runtools.platform.gateway.web.head import (
    END,
    MAX_HEAD,
    AnswerHead,
    BadHead,
    Field,
    RequestHead,
    request,
)
from runtools.platform.gateway.web.pace import Inflow, Outflow
from runtools.platform.gateway.web.pages import Page
from runtools.platform.gateway.web.talk import HIGH, Talk
from runtools.platform.gateway.web.upstream import Upstream
from runtools.platform.gateway.web.way import Way
from runtools.platform.kit.splice import close, is_gone

if TYPE_CHECKING:
    from runtools.platform.gateway.web.house import House

HEAD_SECONDS: Final = 20.0
IDLE_SECONDS: Final = 75.0
ANSWER_SECONDS: Final = 600.0
_LINGER_SECONDS: Final = 5.0
_MAX_AHEAD: Final = 64 << 10  # of requests that come before the answer to the one before
_RESET: Final = struct.pack("ii", 1, 0)


class Visit(asyncio.Protocol):
    """The connection.

    Attributes:
        wish: what the exchange under way was let in by.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self.wish: Wish | None = None
        self.moved = 0.0  # when bytes last went in either direction
        self._held = b""  # came, and is not handed on yet
        self._body: Framing | None = None  # of the request under way
        self._head: RequestHead | None = None  # of the same
        self._more: list[Field] = []  # for its answer
        self._begun = False  # its answer has
        self._said = b""  # the head of the answer, not written yet
        self._host = ""  # that the last request named
        self._place: tuple[str, int] | None = None  # what that is
        self._inflow: Inflow | None = None  # of the request's body
        self._awaits_leave = False  # it sends the body when it is told to
        self._wakes = True  # what is sent wakes the sandbox; else see `Rousing`
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[None] | None = None
        self._talk: Talk | None = None
        self._lingers = False
        self._is_new = True  # no head has come yet
        self._is_slow = False  # it does not read what it is sent
        self._since = 0.0  # when the head that is not whole yet began
        self._ended = False  # it sends nothing more

    # --- what asyncio tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH)
        self.source = source_of(transport)
        self.moved = self._loop.time()
        self._outflow = Outflow(self._transport, self.moved)
        if not self._house.enter(self):
            self._answer(Page(503, "The gateway is full", "Try again in a moment."))
            # Nobody looks at it.
            self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        self.moved = self._loop.time()
        if self._body is not None and not self._held:
            self._take_body(data)
            return
        if not self._held:
            self._since = self.moved
        self._held += data
        if self._head is None:
            self._take_head()
        elif len(self._held) > _MAX_AHEAD:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self._body is not None and not self._body.done:
            self._transport.abort()  # no whole request
            return False
        # It waits for its answer, perhaps; TLS ends both directions at once.
        return self._head is not None and self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def pause_writing(self) -> None:
        self._is_slow = True
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_slow = False
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    # --- what the house asks ---

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way, nor the end of an answer."""
        return self._head is None and not self._lingers

    def limit(self) -> None:
        """The org that it visits has limits to keep from now on."""
        self._wakes = False
        if self._talk is not None and self.wish is not None:
            self._talk.limit(self._waken(self.wish))

    def abort(self) -> None:
        """Break everything off."""
        if self._talk is not None:
            self._talk.abort()
        else:
            self._transport.abort()

    def look(self, now: float) -> None:
        """End what takes too long."""
        quiet = now - self.moved
        if self._talk is not None:
            self._talk.look(now)
        elif self._outflow.stalls(now, is_last=self._lingers):
            self._break_off()
        elif self._ended and not self._transport.is_closing() and is_gone(self._transport):
            self._transport.abort()
        elif self._lingers:
            if quiet > _LINGER_SECONDS and self._outflow.has_all:
                self._transport.abort()
        elif self._head is None:
            if self._held and now - self._since > HEAD_SECONDS:
                self._answer(Page(408, "The request did not come", "Its head took too long."))
            elif quiet > (HEAD_SECONDS if self._is_new else IDLE_SECONDS):
                self._end()
        elif not self._begun:
            self._look_at_request(now, quiet)

    def _look_at_request(self, now: float, quiet: float) -> None:
        """End one whose body comes in drops, or of which nothing becomes."""
        inflow = self._inflow
        if inflow is not None and inflow.drips(now, excused=self._is_held_up(inflow)):
            self._answer(Page(408, "The request did not come", "Its body came too slowly."))
        elif quiet > ANSWER_SECONDS:
            self.answer_fails(f"nothing was said for {ANSWER_SECONDS:g} s", 504)

    def _is_held_up(self, inflow: Inflow) -> bool:
        """Whether it is not for the visitor that little of its body comes."""
        is_whole = self._body is None or self._body.done
        is_slow = self._upstream is not None and self._upstream.is_slow
        return is_whole or is_slow or (self._awaits_leave and not inflow.came)

    # --- the request ---

    def _take_head(self) -> None:
        at = self._held.find(END)
        if at < 0:
            if len(self._held) > MAX_HEAD:
                self._answer(
                    Page(431, "The head is too long", f"At most {MAX_HEAD} bytes are read.")
                )
            return
        said, self._held = self._held[: at + 4], self._held[at + 4 :]
        try:
            if at > MAX_HEAD:
                raise BadHead(f"at most {MAX_HEAD} bytes of a head are read", 431)
            head = request(said)
        except BadHead as exc:
            self._answer(Page(exc.status, "That is no request that goes on", str(exc)))
            return
        self._head, self._more, self._begun, self._is_new = head, [], False, False
        self._begin(head)

    def _begin(self, head: RequestHead) -> None:
        """Judge the request; at once, where all that it needs is at hand."""
        house = self._house
        if head.host != self._host:
            self._host, self._place = head.host, house.urls.place(head.host)
        place = self._place
        if place is None:
            self._answer(house.page_of_nobody(head))
            return
        own = head.target
        wish = Wish(*place, visitor.shown(head, house.urls))
        found = way.known(house, head, wish)
        if found is not None:
            self._send(head, found)
            return
        self._transport.pause_reading()
        self._task = asyncio.create_task(self._serve(head, wish, own))

    async def _serve(self, head: RequestHead, wish: Wish, own: bytes) -> None:
        found = await way.find(self._house, head, wish, own, self.source)
        self._task = None
        if self._transport.is_closing():
            if isinstance(found, Way):
                found.upstream.abort()
        elif isinstance(found, Page):
            self._answer(found)
        else:
            self._send(head, found)

    def _send(self, head: RequestHead, found: Way) -> None:
        wish, upstream = found.wish, found.upstream
        self.wish, self._upstream = lasting(wish, found.verdict), upstream
        if found.more:
            self._more += found.more
        self._wakes = found.verdict.wakes
        self._awaits_leave = b"expect" in head.named
        peer = self._house.peer(self.source, head)
        upstream.begin(self, head.method, upgrades=head.upgrades)
        upstream.transport.write(visitor.inward(head, wish.port, self._house.urls, peer))
        if self._is_slow:
            upstream.transport.pause_reading()
        self._body = framing.of(head.length)
        self.moved = self._loop.time()
        self._inflow = None if self._body.done else Inflow(self.moved)
        if self._held:
            held, self._held = self._held, b""
            self._take_body(held)
        if not upstream.is_slow:
            self._transport.resume_reading()

    def _take_body(self, data: bytes) -> None:
        body, upstream = self._body, self._upstream
        assert body is not None  # noqa: S101 - see the callers
        try:
            goes, rest = body.take(data) if data and not body.done else (b"", data)
        except BadBody as exc:
            if self._begun:
                self._break_off()
            else:
                self._answer(Page(400, "That is no request that goes on", str(exc)))
            return
        if self._inflow is not None:
            self._inflow.came += len(data) - len(rest)
        if goes and upstream is not None:
            upstream.transport.write(goes)
        if rest:
            self._held += rest

    # --- the answer (see `upstream.Listener`) ---

    def answer_begins(self, head: AnswerHead) -> None:
        """Hand its head on."""
        assert self._head is not None  # noqa: S101 - it is the answer to it
        assert self.wish is not None  # noqa: S101 - likewise
        self.moved = self._loop.time()
        self._awaits_leave = False
        more: list[Field] = []
        if head.status >= 200:
            self._begun = True
            self._keeps = (
                self._head.keeps_alive
                and head.length != -1
                and self._body is not None
                and not self._ended
            )
            more = self._more
            if not self._keeps:
                more = [*more, (b"Connection", b"close")]
            elif b"1.0" in (self._head.version, head.version):
                more = [*more, (b"Connection", b"keep-alive")]
        wish, urls = self.wish, self._house.urls
        said = visitor.outward(head, wish.sandbox_id, wish.port, urls, more)
        if head.status < 200 or self._upstream is None:
            self._transport.write(said)
        else:
            self._said = said  # ... and what comes of the body with it

    def answer_comes(self, data: bytes) -> None:
        """Hand it on."""
        self.moved = self._loop.time()
        self._outflow.written += len(data)
        said, self._said = self._said, b""
        self._transport.write(said + data if said else data)

    def answer_waits(self) -> None:
        """No more of it is there for now."""
        if self._said:
            said, self._said = self._said, b""
            self._transport.write(said)

    def answer_ends(self) -> None:
        """Go on to the next request, if there may be one."""
        self.answer_waits()
        upstream, self._upstream = self._upstream, None
        body, self._body = self._body, None
        whole = body is not None and body.done
        # A server may answer without having read the body, and read it as the next request, whose answer
        # would be the next visitor's: only where there was none is the connection anybody's again.
        is_clean = whole and self._head is not None and self._head.length == 0
        if upstream is not None:
            if is_clean:
                self._house.upstreams.give(upstream)
            else:
                upstream.abort()
        self._head, self.wish = None, None
        if not whole:
            self._linger()
        elif not self._keeps or (self._ended and not self._held):
            self._end()
        else:
            self._transport.resume_reading()
            if self._held:
                self._since = self._loop.time()
                self._loop.call_soon(self._take_next)

    def answer_fails(self, problem: str, status: int = 502) -> None:
        """Say so, where nothing of an answer was handed on; else break off: a part is not the whole."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        head, wish = self._head, self.wish
        if self._begun or head is None:
            self._break_off()
            return
        is_stale = upstream is not None and not upstream.is_fresh
        if is_stale and wish is not None and way.is_repeatable(head):
            # The server has closed an idle connection just when this was sent on it.
            self._body = None
            self._transport.pause_reading()
            self._task = asyncio.create_task(self._serve(head, wish, head.target))
            return
        self._answer(
            Page(status, "The server in the sandbox gives no answer", problem.capitalize() + ".")
        )

    def upgraded(self, head: AnswerHead, rest: bytes) -> None:
        """Another protocol is spoken from now on: bytes go as they are."""
        upstream = self._upstream
        assert upstream is not None  # noqa: S101 - it says so
        back = upstream.transport
        self.answer_begins(head)
        self._transport.pause_reading()
        back.pause_reading()
        if rest:
            self._transport.write(rest)
        if self._held:
            back.write(self._held)
            self._held = b""
        assert self.wish is not None  # noqa: S101 - it was let in
        slow = [self._transport] if self._is_slow else []
        if upstream.is_slow:
            slow.append(back)
        waken = None if self._wakes else self._waken(self.wish)
        self._talk = Talk(self._transport, back, self._leave, waken, slow)
        self._talk.begin()

    def _waken(self, wish: Wish) -> Waken:
        return partial(self._house.admission.waken, wish.sandbox_id)

    def server_is_slow(self, *, slow: bool) -> None:
        """Send it nothing for now."""
        if slow:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # --- ends ---

    def _take_next(self) -> None:
        if self._head is None and not self._transport.is_closing():
            self._take_head()

    def _answer(self, page: Page) -> None:
        """Answer by a page of ours, and close: of what still comes nobody knows what it is."""
        if self._task is not None:
            self._task.cancel()
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None
        html = self._head is not None and visitor.wants_html(self._head)
        body = self._head is None or self._head.method != b"HEAD"
        self._transport.write(page.to_bytes(html=html, body=body, close=True))
        self._linger()

    def _break_off(self) -> None:
        """A reset, for an end would make a part the whole."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _end(self) -> None:
        """Close behind an answer to all that came; what waits to be taken is waited for."""
        if self._held:
            self._linger()
            return
        self._lingers = True
        self.moved = self._loop.time()
        close(self._transport)

    def _linger(self) -> None:
        """Close so that the answer is read, though more may be coming that nobody reads."""
        self._lingers = True
        self._held, self._body, self._head, self.wish = b"", None, None, None
        self.moved = self._loop.time()
        if not self._ended and self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            close(self._transport)

    def _leave(self) -> None:
        self._house.leave(self)
        if self._task is not None:
            self._task.cancel()
        if self._upstream is not None and self._talk is None:
            self._upstream.abort()
            self._upstream = None


def source_of(transport: asyncio.BaseTransport) -> str:
    """The address that a connection comes from."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else "-"
