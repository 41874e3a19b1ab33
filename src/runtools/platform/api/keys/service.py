"""Keys: making, revoking, and telling who calls.

A key that was found good is believed for under a second, so that a request costs no query for it and
a revocation acts within one second everywhere, at once in this process.
"""

from __future__ import annotations

from datetime import datetime

from runtools.errors import NotFound, Unauthenticated
from runtools.platform.api.keys import store
from runtools.platform.api.keys.store import Key, Match
from runtools.platform.core.ids import new_id
from runtools.platform.kit import crypto
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database

PREFIX = "rt_live_"
BELIEVED_SECONDS = 0.8
_SHOWN_CHARACTERS = 14
_MAX_BELIEVED = 10_000

_NO_KEY = Unauthenticated(
    "no API key was sent", hint="send it as `Authorization: Bearer rt_live_…` or `X-API-Key`"
)
_BAD_KEY = Unauthenticated(
    "the API key is unknown or revoked", hint="the first key is in client.json of the home"
)


class Keys:
    """The doorkeeper of one process."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._believed: dict[str, tuple[float, Match]] = {}
        self._used: dict[str, datetime] = {}

    async def admit(self, secret: str | None) -> Match:
        """Who calls with this key.

        Raises:
            Unauthenticated: no key, an unknown or a revoked one.
        """
        if secret is None:
            raise Unauthenticated(_NO_KEY.message, hint=_NO_KEY.hint)
        found = await self._known(crypto.digest(secret))
        if found is None:
            raise Unauthenticated(_BAD_KEY.message, hint=_BAD_KEY.hint)
        return found

    async def still_good(self, match: Match) -> bool:
        """Whether a key that was admitted has not been revoked since; for streams that last."""
        return await self._known(match.digest) is not None

    async def _known(self, digest: str) -> Match | None:
        now = self._clock.monotonic()
        at, match = self._believed.get(digest, (0.0, None))
        if match is not None and now - at < BELIEVED_SECONDS:
            return match
        found = await self._db.read(store.match, digest)
        if found is None or not crypto.same(found.digest, digest):
            self._believed.pop(digest, None)
            return None
        if len(self._believed) >= _MAX_BELIEVED:
            self._believed.clear()
        self._believed[digest] = (now, found)
        self._used[found.id] = self._clock.now()
        return found

    async def make(self, org_id: str, name: str, op: str) -> tuple[Key, str | None]:
        """A new key and its secret; a repeat of the act gives the key alone, for it is not kept."""
        secret = crypto.new_secret(PREFIX)
        key = Key(
            id=new_id("key"),
            org_id=org_id,
            name=name,
            prefix=secret[:_SHOWN_CHARACTERS],
            digest=crypto.digest(secret),
            op=op,
            created_at=self._clock.now(),
        )
        made = await self._db.write(store.add_once, key)
        return made, secret if made.id == key.id else None

    async def all_of(self, org_id: str) -> list[Key]:
        """The org's keys."""
        return await self._db.read(store.all_of, org_id)

    async def revoke(self, org_id: str, key_id: str) -> Key:
        """Make the key useless from now on."""
        key = await self._db.write(store.revoke, org_id, key_id, self._clock.now())
        if key is None:
            raise NotFound(f"no API key {key_id[:80]!r}", hint="GET /v1/api-keys lists them")
        self._believed.pop(key.digest, None)
        return key

    async def write_uses(self) -> None:
        """Write down when keys were last used."""
        times, self._used = self._used, {}
        if times:
            await self._db.write(store.used, times)
