"""One connection of a browser or program: request after request, each judged by its own head.

What comes is handed on as it comes, once the head has been judged. Two bounds keep memory: a head of
64 KB, and what either side has not taken yet, which stops the other one. What neither comes nor is taken
at any pace ends (`look`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from runtools.platform.gateway.rousing import Waken
from runtools.platform.gateway.web import pages, visitor, way
from runtools.platform.gateway.web.admission import Wish
from runtools.platform.gateway.web.delivery import Delivery
from runtools.platform.gateway.web.exchange import Exchange
from runtools.platform.gateway.web.framing import BadBody
from runtools.platform.gateway.web.head import END, MAX_HEAD, AnswerHead, BadHead, Field
from runtools.platform.gateway.web.pages import Page
from runtools.platform.gateway.web.requests import Request, Requests
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
        self._request: Request | None = None  # under way
        self._exchange: Exchange | None = None  # the same, once it has gone on
        self._upstream: Upstream | None = None  # where to
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
        self._requests = Requests(self._house, self.source)
        self.moved = self._loop.time()
        self._delivery = Delivery(self._transport, self.moved)
        self._is_in = self._house.enter(self)
        if self._is_in:
            return
        if self._house.say_farewell():
            self._answer(Page(503, "The gateway is full", "Try again in a moment."))
            # Nobody looks at it.
            self._loop.call_later(_LINGER_SECONDS, self._transport.abort)
        else:
            self._lingers = True
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        self.moved = self._loop.time()
        if self._exchange is not None and not self._held:
            self._take_body(self._exchange, data)
            return
        if not self._held:
            self._since = self.moved
        self._held += data
        if self._request is None:
            self._take_head()
        elif len(self._held) > _MAX_AHEAD:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self._exchange is not None and not self._exchange.is_whole:
            self._transport.abort()  # no whole request
            return False
        # It waits for its answer, perhaps; TLS ends both directions at once.
        return self._request is not None and self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_in:
            self._house.left()
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
        return self._request is None and not self._lingers

    def limit(self) -> None:
        """The org that it visits has limits to keep from now on."""
        if self._exchange is not None:
            self._exchange.wakes = False
        if self._talk is not None and self.wish is not None:
            self._talk.limit(self._waken(self.wish))

    def abort(self) -> None:
        """Break everything off."""
        if self._talk is not None:
            self._talk.abort()
        elif self.is_idle:
            self._transport.abort()
        else:
            self._delivery.break_off()

    def look(self, now: float) -> None:
        """End what takes too long."""
        quiet = now - self.moved
        if self._talk is not None:
            self._talk.look(now)
        elif self._delivery.flow.stalls(now, is_last=self._lingers):
            self._delivery.break_off()
        elif self._ended and not self._transport.is_closing() and is_gone(self._transport):
            self._transport.abort()
        elif self._lingers:
            if quiet > _LINGER_SECONDS and self._delivery.flow.has_all:
                self._transport.abort()
        elif self._request is None:
            if self._held and now - self._since > HEAD_SECONDS:
                self._answer(Page(408, "The request did not come", "Its head took too long."))
            elif quiet > (HEAD_SECONDS if self._is_new else IDLE_SECONDS):
                self._end()
        elif self._exchange is None or not self._exchange.begun:
            # One whose body comes in drops, or of which nothing becomes.
            if self._exchange is not None and self._exchange.drips(now):
                self._answer(Page(408, "The request did not come", "Its body came too slowly."))
            elif quiet > ANSWER_SECONDS:
                self._fail(f"nothing was said for {ANSWER_SECONDS:g} s", 504)

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
            request = self._requests.read(said)
        except BadHead as exc:
            self._answer(Page(exc.status, "That is no request that goes on", str(exc)))
            return
        self._request, self._is_new = request, False
        self._begin(request)

    def _begin(self, request: Request) -> None:
        """Judge the request; at once, where all that it needs is at hand."""
        house, wish = self._house, request.wish
        if wish is None:
            self._answer(house.page_of_nobody(request.head))
            return
        house.asks(self, wish.sandbox_id, request.peer)
        found = way.known(house, request.head, wish)
        if found is not None:
            self._send(request, found)
            return
        self._transport.pause_reading()
        self._task = asyncio.create_task(self._serve(request, wish, request.own))

    async def _serve(
        self, request: Request, wish: Wish, own: bytes, more: Sequence[Field] = ()
    ) -> None:
        """Find its way.

        Args:
            more: fields for its answer beside those that come of the way.
        """
        found = await way.find(self._house, request, wish, own)
        self._task = None
        if self._transport.is_closing():
            if isinstance(found, Way):
                found.upstream.abort()
        elif isinstance(found, Page):
            self._answer(found)
        elif found.upstream.transport.is_closing():
            found.upstream.abort()
            self._answer(pages.of_silence("it closed the connection before it was asked"))
        else:
            self._send(request, found._replace(more=[*more, *found.more]))

    def _send(self, request: Request, found: Way) -> None:
        upstream, head = found.upstream, request.head
        self.moved = self._loop.time()
        self._upstream = upstream
        self._exchange = exchange = Exchange(head, found, self.moved)
        self.wish = exchange.wish
        upstream.begin(self, head)
        upstream.transport.write(request.inward(self._house.urls))
        if self._is_slow:
            upstream.transport.pause_reading()
        if self._held:
            held, self._held = self._held, b""
            self._take_body(exchange, held)
        if not upstream.is_slow:
            self._transport.resume_reading()

    def _take_body(self, exchange: Exchange, data: bytes) -> None:
        try:
            self._held += exchange.take(data)
        except BadBody as exc:
            if exchange.begun:
                self._delivery.break_off()
            else:
                self._answer(Page(400, "That is no request that goes on", str(exc)))

    # --- the answer (see `upstream.Listener`) ---

    def answer_begins(self, head: AnswerHead) -> None:
        """Hand its head on."""
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - it is the answer to it
        self.moved = self._loop.time()
        said = exchange.told(head, self._house.urls, is_last=self._ended)
        self._delivery.begin(said, exchange)

    def answer_comes(self, data: bytes) -> None:
        """Hand it on."""
        self.moved = self._loop.time()
        self._delivery.add(data)

    def answer_waits(self) -> None:
        """No more of it is there for now."""
        self._delivery.flush()

    def answer_ends(self) -> None:
        """Go on to the next request, if there may be one."""
        exchange, self._exchange, self._upstream = self._exchange, None, None
        assert exchange is not None  # noqa: S101 - it was the answer to it
        self._delivery.end(exchange)
        if exchange.is_clean:
            self._house.upstreams.give(exchange.upstream)
        else:
            exchange.upstream.abort()
        self._request, self.wish = None, None
        self._house.has_asked(self)
        if not exchange.is_whole:
            self._linger()
        elif not exchange.keeps or (self._ended and not self._held):
            self._end()
        else:
            self._transport.resume_reading()
            if self._held:
                self._since = self._loop.time()
                self._loop.call_soon(self._take_next)

    def answer_fails(self, problem: str, *, is_silent: bool) -> None:
        """It is none, or was broken off; see `_fail`."""
        self._fail(problem, 502, is_silent=is_silent)

    def _fail(self, problem: str, status: int, *, is_silent: bool = False) -> None:
        """Say so, where nothing of an answer was handed on; else break off: a part is not the whole.

        Args:
            is_silent: the server's end of the connection came, and no byte of an answer.
        """
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        exchange, self._exchange = self._exchange, None
        request, wish = self._request, self.wish
        if request is None or (exchange is not None and exchange.begun):
            self._delivery.break_off()
            return
        is_stale = is_silent and upstream is not None and not upstream.is_fresh
        if is_stale and wish is not None and way.is_repeatable(request.head):
            # The server had closed an idle connection when this was sent on it: it has not seen it.
            # What the visitor is to keep, a cookie made of a link that is good once, is still to be told.
            more: Sequence[Field] = () if exchange is None else exchange.more
            self._transport.pause_reading()
            again = self._serve(request, wish, request.head.target, more)
            self._task = asyncio.create_task(again)
            return
        self._answer(pages.of_silence(problem, status))

    def upgraded(self, head: AnswerHead, rest: bytes) -> None:
        """Another protocol is spoken from now on: bytes go as they are."""
        upstream, exchange = self._upstream, self._exchange
        assert upstream is not None  # noqa: S101 - it says so
        assert exchange is not None  # noqa: S101 - likewise
        back = upstream.transport
        self.answer_begins(head)
        self._requests.forget()
        self._transport.pause_reading()
        back.pause_reading()
        if rest:
            self._transport.write(rest)
        if self._held:
            back.write(self._held)
            self._held = b""
        slow = [self._transport] if self._is_slow else []
        if upstream.is_slow:
            slow.append(back)
        waken = None if exchange.wakes else self._waken(exchange.wish)
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
        if self._request is None and not self._transport.is_closing():
            self._take_head()

    def _answer(self, page: Page) -> None:
        """Answer by a page of ours, and close: of what still comes nobody knows what it is."""
        if self._task is not None:
            self._task.cancel()
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None
        head = None if self._request is None else self._request.head
        html = head is not None and visitor.wants_html(head)
        body = head is None or head.method != b"HEAD"
        self._transport.write(page.to_bytes(html=html, body=body, close=True))
        self._linger()

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
        self._held, self._request, self._exchange, self.wish = b"", None, None, None
        self._house.has_asked(self)
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
