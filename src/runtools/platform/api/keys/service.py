"""Keys: making, rotating, revoking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from runtools.errors import Conflict, NotFound, Unauthenticated
from runtools.platform.api.callers.door import Door
from runtools.platform.api.keys import store
from runtools.platform.api.keys.store import Key
from runtools.platform.api.members import store as members
from runtools.platform.api.projects import store as projects
from runtools.platform.core.ids import new_id
from runtools.platform.kit import crypto
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database, Transaction

PREFIX, TEST_PREFIX = "rt_live_", "rt_test_"
_SHOWN_CHARACTERS = 14


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key may do (no scopes: everything in its org), until when, where, and who made it.

    ``project_id`` may be the project's name; None: the org's default one.
    """

    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    project_id: str | None = None
    test: bool = False
    created_by: str | None = None


class Keys:
    """The keys of every org."""

    def __init__(self, db: Database, clock: Clock, door: Door | None = None) -> None:
        self._db = db
        self._clock = clock
        self._door = door

    async def make(
        self,
        org_id: str,
        name: str,
        op: str,
        rights: Rights | None = None,
        told: Callable[[Key], None] = lambda _: None,
    ) -> tuple[Key, str | None]:
        """A new key and its secret; a repeat of the act gives the key alone, for it is not kept.

        Args:
            told: hears of the key within the transaction that makes it.
        """
        key, secret = self._fresh(org_id, name, op, rights or Rights())

        def act(conn: Transaction) -> Key:
            made = _add_once(conn, key)
            told(made)
            return made

        made = await self._db.write(act)
        return made, secret if made.id == key.id else None

    async def rotate(
        self, org_id: str, key_id: str, op: str, by: str, until: datetime | None = None
    ) -> tuple[Key, str | None]:
        """Another key with the name and rights of one that is revoked by it, in one step.

        A repeat of the act gives the key alone.

        Args:
            until: when it ends; None: when the other does.

        Raises:
            NotFound: the org has no such key.
            Conflict: it is revoked already, by another act, or its end is past.
        """
        old = await self._db.read(store.find, org_id, key_id)
        if old is None:
            raise _unknown(key_id)
        ends = until or old.expires_at
        rights = Rights(tuple(old.scopes), ends, old.project_id, _is_test(old), by)
        key, secret = self._fresh(org_id, old.name, op, rights)
        made = await self._db.write(_replace, old, key, self._clock.now())
        self._forget(old)
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
            created_by=rights.created_by,
        )
        return key, secret

    async def revoke(self, org_id: str, key_id: str, *, made: bool = False) -> Key:
        """Make the key useless from now on; with ``made`` also those that it made, and that those did."""
        now = self._clock.now()
        key, ended = await self._db.write(_revoke, org_id, key_id, made, now)
        self._forget(key, *ended)
        return key

    def _forget(self, key: Key, *others: str) -> None:
        if self._door is not None:
            for digest in (key.digest, *others):
                self._door.forget(digest)


def _revoke(
    conn: Transaction, org_id: str, key_id: str, made: bool, now: datetime
) -> tuple[Key, list[str]]:
    # The key first: what it makes at this moment is made before, or not at all.
    key = store.revoke(conn, org_id, key_id, now)
    if key is None:
        raise _unknown(key_id)
    return key, store.revoke_made_by(conn, org_id, key_id, now) if made else []


def _check_maker(conn: Transaction, key: Key) -> None:
    """Who makes it may still make keys, and ends not before it is made: so whoever ends them with it does.

    Raises:
        Unauthenticated: the maker is revoked by now, or out of the org.
    """
    maker = key.created_by
    if maker is None:
        return
    if maker.startswith("usr_"):
        there = members.held(conn, key.org_id, maker)
    else:
        there = store.held(conn, key.org_id, maker)
    if not there:
        raise Unauthenticated("who makes the key may make none any more")


def _add_once(conn: Transaction, key: Key) -> Key:
    _check_maker(conn, key)
    return _add(conn, key)


def _add(conn: Transaction, key: Key) -> Key:
    place = projects.place(conn, key.org_id, key.project_id)
    return store.add_once(conn, replace(key, project_id=place))


def _replace(conn: Transaction, old: Key, key: Key, now: datetime) -> Key:
    # The old key is closed first: of acts that do so at once the database lets one through, and a key
    # that is revoked meanwhile hands nothing on.
    if key.created_by != old.id:
        _check_maker(conn, key)
    if store.close(conn, old.org_id, old.id, now):
        if key.expires_at is not None and key.expires_at <= now:
            raise Conflict(
                f"API key {old.id} has ended, and another of the same end would open nothing",
                hint="say how long it is to last: expiresIn (--expires-in 90d)",
                details={"expiresAt": key.expires_at.isoformat()},
            )
        return _add(conn, key)
    made = store.made_by_act(conn, key.org_id, key.op)
    if made is None:
        raise Conflict(f"API key {old.id} is revoked", hint="make a new one")
    return made


def _is_test(key: Key) -> bool:
    return key.prefix.startswith(TEST_PREFIX)


def _unknown(key_id: str) -> NotFound:
    return NotFound(f"no API key {key_id[:80]!r}", hint="GET /v1/api-keys lists them")
