"""One connection of a browser or program: request after request, each judged by its own head.

What comes is handed on as it comes, once the head has been judged. Two bounds keep memory: a head of
64 KB, and what either side has not taken yet, which stops the other one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from runtools.errors import PortClosed, RunToolsError, SandboxStopped, Unavailable
from runtools.platform.core.dev_urls import DevUrls, is_open
from runtools.platform.gateway.web import framing, pages, visitor
from runtools.platform.gateway.web.admission import Wish
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
from runtools.platform.gateway.web.pages import Page
from runtools.platform.gateway.web.upstream import Upstream
from runtools.platform.gateway.web.visitor import Shown
from runtools.platform.kit.splice import HIGH, Splice

if TYPE_CHECKING:
    from runtools.platform.gateway.web.house import House

log = logging.getLogger(__name__)

HEAD_SECONDS: Final = 20.0
IDLE_SECONDS: Final = 75.0
ANSWER_SECONDS: Final = 600.0
_LINGER_SECONDS: Final = 5.0
_MAX_AHEAD: Final = 256 << 10  # of requests that come before the answer to the one before
_RESET: Final = struct.pack("ii", 1, 0)
_REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3))


class Visit(asyncio.Protocol):
    """The connection.

    Attributes:
        wish: what the exchange under way was let in by.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self.wish: Wish | None = None
        self.moved = 0.0  # when bytes last went in either direction
        self._held = b""  # came, and is not handed on yet
        self._body: Framing | None = None  # of the request under way
        self._head: RequestHead | None = None  # of the same
        self._more: list[Field] = []  # for its answer
        self._begun = False  # its answer has
        self._said = b""  # the head of the answer, not written yet
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[None] | None = None
        self._splice: Splice | None = None
        self._lingers = False
        self._is_slow = False  # it does not read what it is sent
        self._since = 0.0  # when the head that is not whole yet began
        self._ended = False  # it sends nothing more

    # --- what asyncio tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH)
        peer = self._transport.get_extra_info("peername")
        self.source = str(peer[0]) if peer else "-"
        self.moved = asyncio.get_running_loop().time()
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if not self._house.enter(self):
            self._answer(Page(503, "The gateway is full", "Try again in a moment."))

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        self.moved = asyncio.get_running_loop().time()
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

    def abort(self) -> None:
        """Break everything off."""
        if self._splice is not None:
            self._splice.abort()
        else:
            self._transport.abort()

    def look(self, now: float) -> None:
        """End what takes too long."""
        quiet = now - self.moved
        if self._splice is not None:
            return
        if self._lingers:
            if quiet > _LINGER_SECONDS:
                self._transport.abort()
        elif self._head is None:
            if self._held and now - self._since > HEAD_SECONDS:
                self._answer(Page(408, "The request did not come", "Its head took too long."))
            elif quiet > IDLE_SECONDS:
                self._transport.close()
        elif self._upstream is not None and not self._begun and quiet > ANSWER_SECONDS:
            self.answer_fails(f"nothing was said for {ANSWER_SECONDS:g} s", 504)

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
        self._head, self._more, self._begun = head, [], False
        self._begin(head)

    def _begin(self, head: RequestHead) -> None:
        """Judge the request; at once, where all that it needs is at hand."""
        house = self._house
        place = house.urls.place(head.host)
        if place is None:
            self._answer(house.page_of_nobody(head))
            return
        own = head.target
        wish = Wish(*place, visitor.shown(head, house.urls))
        verdict = house.admission.known(wish)
        if verdict is not None and verdict.answer == "enter":
            upstream = house.upstreams.idle(place, repeatable=self._is_repeatable(head))
            if upstream is not None:
                self._send(head, wish, upstream)
                return
        self._transport.pause_reading()
        self._task = asyncio.create_task(self._serve(head, wish, own))

    async def _serve(self, head: RequestHead, wish: Wish, own: bytes) -> None:
        place = (wish.sandbox_id, wish.port)
        try:
            verdict = await self._house.admission.verdict(wish)
            if verdict.answer != "enter":
                self._answer(self._house.page_of_stranger(head, wish, own))
                return
            if verdict.cookie is not None:
                kept = visitor.cookie(verdict.cookie, verdict.seconds, self._house.urls)
                if visitor.is_navigation(head):
                    address = self._house.urls.url(*place) + head.target.decode("latin-1")
                    self._answer(pages.away(address, [kept]))
                    return
                self._more.append(kept)
                wish = replace(wish, shown=Shown(cookies=(verdict.cookie,)))  # which is asked again
            upstream = self._house.upstreams.idle(place, repeatable=self._is_repeatable(head))
            if upstream is None:
                upstream = await self._house.upstreams.open(place)
            if self._transport.is_closing():
                upstream.abort()
                return
            self._send(head, wish, upstream)
        except RunToolsError as exc:
            self._answer(page_of(exc, self._house.urls, wish))
        except Exception:
            # The edge of a connection: whatever it is, the caller is told and it is logged.
            log.exception("a request to %s failed", wish.sandbox_id)
            self._answer(Page(500, "The gateway failed", "Its log says how."))
        finally:
            self._task = None

    def _is_repeatable(self, head: RequestHead) -> bool:
        return head.method in _REPEATABLE and head.length == 0

    def _send(self, head: RequestHead, wish: Wish, upstream: Upstream) -> None:
        self.wish, self._upstream = wish, upstream
        peer = self._house.peer(self.source, head)
        upstream.begin(self, head.method, upgrades=head.upgrades)
        upstream.transport.write(visitor.inward(head, wish.port, self._house.urls, peer))
        if self._is_slow:
            upstream.transport.pause_reading()
        self._body = framing.of(head.length)
        self.moved = asyncio.get_running_loop().time()
        held, self._held = self._held, b""
        self._take_body(held)
        self._transport.resume_reading()

    def _take_body(self, data: bytes) -> None:
        body, upstream = self._body, self._upstream
        assert body is not None  # noqa: S101 - see the callers
        try:
            count = body.take(data) if data and not body.done else 0
        except BadBody as exc:
            self._answer(Page(400, "That is no request that goes on", str(exc)))
            return
        if count and upstream is not None:
            upstream.transport.write(data[:count] if count < len(data) else data)
        if count < len(data):
            self._held += data[count:]

    # --- the answer (see `upstream.Listener`) ---

    def answer_begins(self, head: AnswerHead) -> None:
        """Hand its head on."""
        assert self._head is not None  # noqa: S101 - it is the answer to it
        assert self.wish is not None  # noqa: S101 - likewise
        self.moved = asyncio.get_running_loop().time()
        more: list[Field] = []
        if head.status >= 200:
            self._begun = True
            self._keeps = (
                self._head.keeps_alive
                and head.length != -1
                and self._body is not None
                and not self._ended
            )
            more = [*self._more, *([] if self._keeps else [(b"Connection", b"close")])]
        base = self._house.urls.url(self.wish.sandbox_id, self.wish.port)
        said = visitor.outward(head, base, self.wish.port, more)
        if head.status < 200 or self._upstream is None:
            self._transport.write(said)
        else:
            self._said = said  # ... and what comes of the body with it

    def answer_comes(self, data: bytes) -> None:
        """Hand it on."""
        self.moved = asyncio.get_running_loop().time()
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
        if upstream is not None:
            if whole:
                self._house.upstreams.give(upstream)
            else:
                upstream.abort()
        self._head, self.wish = None, None
        if not (whole and self._keeps):
            self._linger()
            return
        self._transport.resume_reading()
        if self._held:
            asyncio.get_running_loop().call_soon(self._take_next)

    def answer_fails(self, problem: str, status: int = 502) -> None:
        """Say so, where nothing of an answer was handed on; else break off: a part is not the whole."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        head, wish = self._head, self.wish
        if self._begun or head is None or wish is None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:  # a reset, for an end would make a part the whole
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            return
        if upstream is not None and not upstream.is_fresh and self._is_repeatable(head):
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
        assert self._upstream is not None  # noqa: S101 - it says so
        back = self._upstream.transport
        self.answer_begins(head)
        self._transport.pause_reading()
        back.pause_reading()
        if rest:
            self._transport.write(rest)
        if self._held:
            back.write(self._held)
            self._held = b""
        self._splice = Splice(self._transport, back, self._leave)
        self._splice.begin()

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
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None
        html = self._head is not None and visitor.wants_html(self._head)
        body = self._head is None or self._head.method != b"HEAD"
        self._transport.write(page.to_bytes(html=html, body=body, close=True))
        self._linger()

    def _linger(self) -> None:
        """Close so that the answer is read, though more may be coming that nobody reads."""
        self._lingers = True
        self._held, self._body, self._head, self.wish = b"", None, None, None
        loop = asyncio.get_running_loop()
        self.moved = loop.time()
        # Also where it takes nothing, and where the house had no room to count it.
        loop.call_later(_LINGER_SECONDS, self._transport.abort)
        if self._ended:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _leave(self) -> None:
        self._house.leave(self)
        if self._task is not None:
            self._task.cancel()
        if self._upstream is not None and self._splice is None:
            self._upstream.abort()
            self._upstream = None


def page_of(error: RunToolsError, urls: DevUrls, wish: Wish) -> Page:
    """What an error of the way to the sandbox is to somebody who may enter."""
    if isinstance(error, PortClosed):
        return _waiting(error, urls, wish)
    sentence = str(error)
    if isinstance(error, SandboxStopped):
        return Page(410, "The sandbox has stopped", sentence)
    if isinstance(error, Unavailable):
        return Page(503, "The sandbox cannot be reached now", sentence, reloads=True)
    return Page(error.status, "The sandbox cannot be reached", sentence)


def _waiting(error: PortClosed, urls: DevUrls, wish: Wish) -> Page:
    ports = [port for port in error.details.get("ports", []) if is_open(port)]
    others = "Something listens on:" if ports else "Nothing listens on any other port either."
    return Page(
        503,
        f"Nothing listens on port {wish.port} yet",
        f"Start a server in {wish.sandbox_id}, on any address, 127.0.0.1 included. {others}",
        links=[(urls.url(wish.sandbox_id, port), f"port {port}") for port in ports],
        reloads=True,
    )
