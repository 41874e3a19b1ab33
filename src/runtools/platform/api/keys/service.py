"""Keys: making, revoking, and telling who calls.

A key that was found good is believed for under a second, so that a request costs no query for it and
a revocation acts within one second everywhere, at once in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from runtools.errors import Conflict, NotFound, Unauthenticated
from runtools.platform.api.keys import store
from runtools.platform.api.keys.store import Key, Match
from runtools.platform.api.projects import store as projects
from runtools.platform.core.ids import new_id
from runtools.platform.kit import crypto
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database, Transaction

ItemT = TypeVar("ItemT")

PREFIX, TEST_PREFIX = "rt_live_", "rt_test_"
BELIEVED_SECONDS = 0.8
_SHOWN_CHARACTERS = 14
_MAX_BELIEVED = 10_000

_NO_KEY = Unauthenticated(
    "no API key was sent", hint="send it as `Authorization: Bearer rt_live_…` or `X-API-Key`"
)
_BAD_KEY = Unauthenticated(
    "the API key is unknown, expired or revoked", hint="the first key is in client.json of the home"
)


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key may do (no scopes: everything), until when, and in which project it lies.

    ``project_id`` may be the project's name; None: the org's default one.
    """

    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    project_id: str | None = None
    test: bool = False


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

    async def while_good(
        self, match: Match, items: AsyncIterator[ItemT]
    ) -> AsyncGenerator[ItemT, None]:
        """The items as they come, for as long as the key is not revoked."""
        coming: asyncio.Task[ItemT] | None = None
        try:
            while await self.still_good(match):
                coming = coming or asyncio.ensure_future(anext(items))
                done, _ = await asyncio.wait((coming,), timeout=BELIEVED_SECONDS)
                if done:
                    item, coming = coming.result(), None
                    yield item
        except StopAsyncIteration:
            return
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait((coming,))
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    async def _known(self, digest: str) -> Match | None:
        now = self._clock.monotonic()
        at, match = self._believed.get(digest, (0.0, None))
        if match is not None and now - at < BELIEVED_SECONDS and not self._is_over(match):
            return match
        found = await self._db.read(store.match, digest)
        if found is None or not crypto.same(found.digest, digest) or self._is_over(found):
            self._believed.pop(digest, None)
            return None
        if len(self._believed) >= _MAX_BELIEVED:
            self._believed.clear()
        self._believed[digest] = (now, found)
        self._used[found.id] = self._clock.now()
        return found

    def _is_over(self, match: Match) -> bool:
        return match.expires_at is not None and match.expires_at <= self._clock.now()

    async def make(
        self, org_id: str, name: str, op: str, rights: Rights | None = None
    ) -> tuple[Key, str | None]:
        """A new key and its secret; a repeat of the act gives the key alone, for it is not kept."""
        key, secret = self._fresh(org_id, name, op, rights or Rights())
        made = await self._db.write(_add_once, key)
        return made, secret if made.id == key.id else None

    async def rotate(self, org_id: str, key_id: str, op: str) -> tuple[Key, str | None]:
        """Another key with the name and rights of one that is revoked by it, in one step.

        A repeat of the act gives the key alone.

        Raises:
            NotFound: the org has no such key.
            Conflict: it is revoked already, by another act.
        """
        old = await self._db.read(store.find, org_id, key_id)
        if old is None:
            raise _unknown(key_id)
        rights = Rights(tuple(old.scopes), old.expires_at, old.project_id, _is_test(old))
        key, secret = self._fresh(org_id, old.name, op, rights)
        made = await self._db.write(_replace, old, key, self._clock.now())
        self._believed.pop(old.digest, None)
        return made, secret if made.id == key.id else None

    def _fresh(self, org_id: str, name: str, op: str, rights: Rights) -> tuple[Key, str]:
        secret = crypto.new_secret(TEST_PREFIX if rights.test else PREFIX)
        key = Key(
            id=new_id("key"),
            org_id=org_id,
            name=name,
            prefix=secret[:_SHOWN_CHARACTERS],
            digest=crypto.digest(secret),
            op=op,
            created_at=self._clock.now(),
            scopes=sorted(rights.scopes),
            expires_at=rights.expires_at,
            project_id=rights.project_id,
        )
        return key, secret

    async def all_of(self, org_id: str, project_id: str | None = None) -> list[Key]:
        """The org's keys, or those of a project."""
        return await self._db.read(store.all_of, org_id, project_id)

    async def revoke(self, org_id: str, key_id: str) -> Key:
        """Make the key useless from now on."""
        key = await self._db.write(store.revoke, org_id, key_id, self._clock.now())
        if key is None:
            raise _unknown(key_id)
        self._believed.pop(key.digest, None)
        return key

    async def write_uses(self) -> None:
        """Write down when keys were last used."""
        times, self._used = self._used, {}
        if times:
            await self._db.write(store.used, times)


def _add_once(conn: Transaction, key: Key) -> Key:
    place = projects.place(conn, key.org_id, key.project_id)
    return store.add_once(conn, replace(key, project_id=place))


def _replace(conn: Transaction, old: Key, key: Key, now: datetime) -> Key:
    made = _add_once(conn, key)
    if made.id != key.id:
        return made
    if old.revoked_at is not None:
        raise Conflict(f"API key {old.id} is revoked", hint="make a new one")
    store.revoke(conn, old.org_id, old.id, now)
    return made


def _is_test(key: Key) -> bool:
    return key.prefix.startswith(TEST_PREFIX)


def _unknown(key_id: str) -> NotFound:
    return NotFound(f"no API key {key_id[:80]!r}", hint="GET /v1/api-keys lists them")
