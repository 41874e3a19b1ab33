"""Who waits for which sandbox to change, within this process.

A signal is a hint to read the database again, never news by itself: another process may have written,
so everybody who waits also looks again by himself now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

LOOK_AGAIN_SECONDS = 1.0


class Watch:
    """Waits for the next change; one that came while nobody waited counts."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def signal(self) -> None:
        """Something changed."""
        self._changed.set()

    async def wait(self, seconds: float = LOOK_AGAIN_SECONDS) -> None:
        """Return at the next change, or when it is time to look again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, LOOK_AGAIN_SECONDS)):
                await self._changed.wait()
        self._changed.clear()


class Bus:
    """Carries signals by topic: a sandbox's id, or an org's for all of its sandboxes."""

    def __init__(self) -> None:
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)

    def signal(self, *topics: str) -> None:
        """Wake everybody who watches one of the topics."""
        for topic in topics:
            for watch in self._watches.get(topic, ()):
                watch.signal()

    @contextlib.contextmanager
    def watching(self, topic: str) -> Iterator[Watch]:
        """Signals of the topic from now on. Read the database after this, not before."""
        watch = Watch()
        self._watches[topic].add(watch)
        try:
            yield watch
        finally:
            self._watches[topic].discard(watch)
            if not self._watches[topic]:
                del self._watches[topic]
