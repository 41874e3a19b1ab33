"""Connections to servers in sandboxes: one answer after another is read on each, idle ones are kept."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Final, Protocol, cast

from runtools.platform.core.ports.reach import Reach
from runtools.platform.gateway.web import framing, head
from runtools.platform.gateway.web.framing import BadBody, Framing
from runtools.platform.gateway.web.head import END, MAX_HEAD, AnswerHead, BadHead, RequestHead
from runtools.platform.kit.splice import is_gone

Place = tuple[str, int]

# Servers close idle connections after a few seconds (5 in Node): these are given up before.
_IDLE_SECONDS: Final = 4.0
_SURE_SECONDS: Final = 0.5
_MOST_OF_A_PLACE: Final = 64
_INTERIM: Final = 200
_MOST_INTERIM: Final = 100
_SWITCHING: Final = 101


class Listener(Protocol):
    """Who gets the answer."""

    def answer_begins(self, head: AnswerHead) -> None:
        """Its head, an interim one included."""
        ...

    def answer_comes(self, data: bytes) -> None:
        """Some of its body, as it is to be handed on."""
        ...

    def answer_waits(self) -> None:
        """No more of it is there for now."""
        ...

    def answer_ends(self) -> None:
        """It is whole."""
        ...

    def answer_fails(self, problem: str, *, is_silent: bool) -> None:
        """It is none, or was broken off; silent: the connection ended, and not a byte of it had come."""
        ...

    def upgraded(self, head: AnswerHead, rest: bytes) -> None:
        """From now on the connection speaks another protocol."""
        ...

    def server_is_slow(self, *, slow: bool) -> None:
        """Whether to send it nothing more for now."""
        ...


class Upstream(asyncio.Protocol):
    """One connection.

    Attributes:
        is_fresh: nothing was ever answered on it.
        is_reusable: another request may be sent on it.
        is_slow: it does not take what it is sent.
        wakes: what is sent on it wakes the sandbox.
    """

    def __init__(self, place: Place, *, wakes: bool = True) -> None:
        self.place = place
        self.wakes = wakes
        self.is_fresh = True
        self.is_reusable = False
        self.is_slow = False
        self.since = 0.0
        self._listener: Listener | None = None
        self._method = b""
        self._upgrades = False
        self._unpacks = False
        self._held = b""
        self._framing: Framing | None = None
        self._interim = 0  # answers before the answer
        self._keeps = False

    def begin(self, listener: Listener, asked: RequestHead) -> None:
        """A request is sent on it now. Who knows no chunks gets what they hold."""
        self._listener = listener
        self._method = asked.method
        self._upgrades = asked.upgrades
        self._unpacks = asked.is_old
        self._framing = None
        self._interim = 0
        self._held = b""
        self.is_reusable = False

    def leave(self) -> None:
        """Nobody listens any more."""
        self._listener = None

    def abort(self) -> None:
        """Break off."""
        self._listener = None
        self.transport.abort()

    # --- what asyncio tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._listener is None:  # an answer to nothing
            self.is_reusable = False
            self.transport.abort()
            return
        try:
            self._take(data)
        except (BadHead, BadBody) as exc:
            self._fail(f"what listens there gives an answer that is none: {exc}", is_silent=False)

    def eof_received(self) -> bool:
        if isinstance(self._framing, framing.Endless) and not is_gone(self.transport):
            self._end(b"")
        else:
            self._breaks()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_reusable = False
        self._breaks()

    def pause_writing(self) -> None:
        self.is_slow = True
        if self._listener is not None:
            self._listener.server_is_slow(slow=True)

    def resume_writing(self) -> None:
        self.is_slow = False
        if self._listener is not None:
            self._listener.server_is_slow(slow=False)

    # --- how ---

    def _breaks(self) -> None:
        begun = "in the middle of its answer" if self._framing is not None else "without an answer"
        is_silent = self._framing is None and not self._held and not self._interim
        self._fail(f"what listens there broke off {begun}", is_silent=is_silent)

    def _fail(self, problem: str, *, is_silent: bool) -> None:
        listener, self._listener = self._listener, None
        self.is_reusable = False
        self.transport.abort()
        if listener is not None:
            listener.answer_fails(problem, is_silent=is_silent)

    def _take(self, data: bytes) -> None:
        while self._framing is None:
            self._held += data
            at = self._held.find(END)
            if at < 0:
                if len(self._held) > MAX_HEAD:
                    raise BadHead("its head has no end")
                return
            said, data, self._held = self._held[: at + 4], self._held[at + 4 :], b""
            if self._take_head(head.answer(said, self._method), data):
                return
        assert self._listener is not None  # noqa: S101 - see data_received
        goes, rest = self._framing.take(data) if data else (b"", b"")
        if goes:
            self._listener.answer_comes(goes)
        if self._framing.done:
            self._end(rest)
        else:
            self._listener.answer_waits()

    def _take_head(self, answer: AnswerHead, rest: bytes) -> bool:
        """Whether it ends the talk of HTTP."""
        assert self._listener is not None  # noqa: S101 - see data_received
        if answer.status == _SWITCHING:
            if not self._upgrades:
                raise BadHead("it changes to a protocol that nobody asked for")
            listener, self._listener = self._listener, None
            listener.upgraded(answer, rest)
            return True
        if answer.status < _INTERIM:
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise BadHead(f"more than {_MOST_INTERIM} that say to wait")
        self._listener.answer_begins(answer)
        if answer.status >= _INTERIM:
            self._keeps = answer.keeps_alive and answer.version == b"1.1"
            self._framing = framing.of(answer.length, unpacks=self._unpacks)
        return False

    def _end(self, rest: bytes) -> None:
        listener, self._listener = self._listener, None
        self.is_fresh = False
        endless = isinstance(self._framing, framing.Endless)
        self.is_reusable = self._keeps and not rest and not endless
        if not self.is_reusable:
            self.transport.abort()
        if listener is not None:
            listener.answer_ends()


class Upstreams:
    """Opens connections, and keeps those for a moment on which more can be asked.

    Args:
        most: how many are kept.
    """

    def __init__(self, reach: Reach, most: int) -> None:
        self._time = asyncio.get_running_loop().time
        self._reach = reach
        self._most = most
        self._kept = 0
        self._idle: dict[Place, list[Upstream]] = defaultdict(list)

    def idle(self, place: Place, *, repeatable: bool, wakes: bool) -> Upstream | None:
        """One that waits for a request. What cannot be sent again is given only one just used.

        Args:
            wakes: what is sent on it may wake the sandbox.
        """
        waiting = self._idle.get(place)
        if not waiting:
            return None
        now = self._time()
        while waiting:
            one = waiting.pop()
            self._kept -= 1
            age = now - one.since
            usable = one.is_reusable and not one.transport.is_closing() and (wakes or not one.wakes)
            if usable and age < (_IDLE_SECONDS if repeatable else _SURE_SECONDS):
                return one
            one.abort()
        return None

    async def open(self, place: Place, *, wakes: bool) -> Upstream:
        """A fresh one; see `Reach`."""
        made = Upstream(place, wakes=wakes)
        await self._reach.attach(*place, made, wakes=wakes)
        return made

    def give(self, upstream: Upstream) -> None:
        """One on which an answer has ended."""
        waiting = self._idle[upstream.place]
        has_room = len(waiting) < _MOST_OF_A_PLACE and self._kept < self._most
        # What it has not been sent whole would have the next request wait behind it.
        is_sent = not upstream.transport.get_write_buffer_size()
        if upstream.is_reusable and is_sent and has_room:
            upstream.transport.resume_reading()
            upstream.since = self._time()
            waiting.append(upstream)
            self._kept += 1
        else:
            upstream.abort()

    def sweep(self) -> None:
        """Give up those that have waited for too long."""
        now = self._time()
        for place, waiting in list(self._idle.items()):
            old = [one for one in waiting if now - one.since > _IDLE_SECONDS or not one.is_reusable]
            for one in old:
                waiting.remove(one)
                self._kept -= 1
                one.abort()
            if not waiting:
                del self._idle[place]

    def close(self) -> None:
        """Give all up."""
        for waiting in self._idle.values():
            for one in waiting:
                one.abort()
        self._idle.clear()
