"""Who may enter, as the api last said it: an answer is believed for under a second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from runtools.platform.core.ports.admitting import Admitting, Asked, Verdict
from runtools.platform.gateway.web.visitor import Shown
from runtools.platform.kit.clock import Clock

BELIEVED_SECONDS: Final = 0.8
_MOST: Final = 10_000
_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """Where somebody wants to, and with what."""

    sandbox_id: str
    port: int
    shown: Shown


class Admission:
    """Asks the api, and remembers for a moment."""

    def __init__(self, admitting: Admitting, clock: Clock) -> None:
        self._admitting = admitting
        self._clock = clock
        self._known: dict[Wish, tuple[float, Verdict]] = {}
        self._asking: dict[Wish, asyncio.Task[Verdict]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    def known(self, wish: Wish) -> Verdict | None:
        """What was said a moment ago."""
        at, verdict = self._known.get(wish, (0.0, None))
        fresh = verdict is not None and self._clock.monotonic() - at < BELIEVED_SECONDS
        return verdict if fresh else None

    async def verdict(self, wish: Wish) -> Verdict:
        """What is said now.

        Raises:
            Unavailable: nobody can say at the moment.
        """
        verdict = self.known(wish)
        if verdict is not None:
            return verdict
        asking = self._asking.get(wish)
        if asking is None:
            asking = asyncio.create_task(self._ask(wish))
            self._asking[wish] = asking
            asking.add_done_callback(lambda _: self._asking.pop(wish, None))
        return await asyncio.shield(asking)

    async def _ask(self, wish: Wish) -> Verdict:
        shown = wish.shown
        asked = Asked(
            sandbox_id=wish.sandbox_id,
            port=wish.port,
            key=shown.key,
            link=shown.link,
            cookies=shown.cookies,
        )
        async with self._room:
            began = self._clock.monotonic()
            verdict = await self._admitting.admit(asked)
        if shown.link is None:  # a link may be good once, and what it becomes is somebody's own
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[wish] = (began, verdict)
        return verdict
