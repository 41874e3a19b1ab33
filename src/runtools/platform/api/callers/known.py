"""The API keys that this process knows to be good: until one is revoked, whichever it is.

A key changes in nothing but its end: it expires, which a clock tells, or is revoked, and whatever revokes
keys raises a count in the same transaction (`keys.store.revoked`). So what was read of a key after the
count was, holds for as long as the count is the same. It is read again when it is nearly a second old,
and where it is another one every key is asked for anew.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from runtools.platform.api.keys import store
from runtools.platform.core.access import Caller
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database

MOST = 20_000


class KnownKeys:
    """Those that were used last, up to `MOST`.

    Args:
        lasts: for how many seconds the count is believed.
    """

    def __init__(self, db: Database, clock: Clock, lasts: float) -> None:
        self._db = db
        self._clock = clock
        self._lasts = lasts
        self._known: OrderedDict[str, Caller] = OrderedDict()
        self._count: int | None = None
        self._looked = -math.inf

    async def caller(self, digest: str) -> Caller | None:
        """Who has the key of that digest, as it was under a second ago; it may have expired."""
        await self._look()
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
            return known
        count = self._count
        found = await self._db.read(store.caller, digest)
        # Had the count become another one meanwhile, the key might have been read before that.
        if found is not None and count == self._count:
            self._known[digest] = found
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return found

    def forget(self, digest: str) -> None:
        """Know nothing of it any longer."""
        self._known.pop(digest, None)

    async def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked < self._lasts:
            return
        count = await self._db.read(store.revoked)
        if count != self._count:
            self._count = count
            self._known.clear()
        self._looked = max(self._looked, now)
