"""Who may enter, as the api last said it: an answer is believed for under a second.

A port that is public is so for all: it is asked about once, whatever its visitors show. Sources that
ask for much that is not there are held up, whatever names they ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final, NamedTuple

from runtools.platform.core.ports.admitting import Admitting, Asked, Stay, Verdict
from runtools.platform.gateway.waking import Waking
from runtools.platform.gateway.web.visitor import NOTHING, Shown
from runtools.platform.kit import rates
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.rates import Buckets

BELIEVED_SECONDS: Final = 0.8
STRANGE_A_MINUTE: Final = 600
_MOST: Final = 10_000
_AT_ONCE: Final = 64
_AT_ONCE_OF_STRANGE: Final = 4


class Wish(NamedTuple):
    """Where somebody wants to, and with what."""

    sandbox_id: str
    port: int
    shown: Shown

    def asked(self) -> Asked:
        """The same as a question."""
        shown = self.shown
        return Asked(
            sandbox_id=self.sandbox_id,
            port=self.port,
            key=shown.key,
            link=shown.link,
            cookies=shown.cookies,
        )


class Admission:
    """Asks the api, and remembers for a moment."""

    def __init__(self, admitting: Admitting, clock: Clock) -> None:
        self._admitting = admitting
        self._clock = clock
        self._known: dict[Wish, tuple[float, Verdict]] = {}  # those who may enter
        self._asking: dict[tuple[Wish, bool], asyncio.Task[Verdict]] = {}
        self._waking = Waking(admitting.waken)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._back_room = asyncio.Semaphore(_AT_ONCE_OF_STRANGE)
        self._strange = Buckets(clock, STRANGE_A_MINUTE)

    def known(self, wish: Wish) -> Verdict | None:
        """What was said a moment ago, if that was that it may enter."""
        found = self._known.get(wish)
        if found is None and wish.shown is not NOTHING and wish.shown.link is None:
            found = self._known.get(Wish(wish.sandbox_id, wish.port, NOTHING))
            if found is not None and not found[1].public:
                return None
        if found is None or self._clock.monotonic() - found[0] >= BELIEVED_SECONDS:
            return None
        return found[1]

    async def verdict(self, wish: Wish, source: str) -> Verdict:
        """What is said now to somebody from there.

        Raises:
            Unavailable: nobody can say at the moment.
            RateLimited: it may not enter, and too much was asked for from there that may not.
        """
        verdict = self.known(wish)
        if verdict is not None:
            return verdict
        source = rates.source(source)
        is_strange = self._strange.wait(source) > 0
        # Nobody waits for what a strange one's junk is before.
        key = wish, is_strange
        asking = self._asking.get(key)
        if asking is None:
            # What is good is let in from whatever address; it waits among the others from there.
            room = self._back_room if is_strange else self._room
            asking = asyncio.create_task(self._ask(wish, room))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        verdict = await asyncio.shield(asking)
        if verdict.answer != "enter":
            _, wait = self._strange.take(source)
            if wait:
                raise rates.too_many("requests for what is not there", wait)
        return verdict

    async def stays(self, wishes: Collection[Wish]) -> list[Stay]:
        """Whether each of those who were let in may stay.

        Raises:
            Unavailable: nobody can say at the moment.
        """
        return list(await self._admitting.stays([wish.asked() for wish in wishes]))

    async def waken(self, sandbox_id: str) -> None:
        """Have a sandbox awake whose org has limits to keep, for all who want it at once."""
        await self._waking.waken(sandbox_id)

    async def _ask(self, wish: Wish, room: asyncio.Semaphore) -> Verdict:
        async with room:
            began = self._clock.monotonic()
            verdict = await self._admitting.admit(wish.asked())
        # A link may be good once, and what it becomes is somebody's own.
        if verdict.answer == "enter" and wish.shown.link is None:
            self._keep(lasting(wish, verdict), began, verdict)
        return verdict

    def _keep(self, wish: Wish, began: float, verdict: Verdict) -> None:
        self._known.pop(wish, None)
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[wish] = (began, verdict)


def lasting(wish: Wish, verdict: Verdict) -> Wish:
    """By what somebody stays who was let in so: of a public port by nothing, of a link by its cookie."""
    if verdict.public:
        return Wish(wish.sandbox_id, wish.port, NOTHING)
    if verdict.cookie is not None:
        return Wish(wish.sandbox_id, wish.port, Shown(cookies=(verdict.cookie,)))
    return wish
