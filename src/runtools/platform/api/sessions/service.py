"""Sessions: opening one for a person who has proven to be it, listing and ending them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from runtools.errors import NotFound, Unauthenticated
from runtools.platform.api.callers.door import Door
from runtools.platform.api.identities import store as identities
from runtools.platform.api.members import store as members
from runtools.platform.api.sessions import store
from runtools.platform.api.sessions.store import Place, Session
from runtools.platform.api.users import store as users
from runtools.platform.core.ids import new_id
from runtools.platform.kit import crypto
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database, Transaction

_MAX_LABEL = 200

Shown = tuple[str, str]
"""The issuer and the subject of an identity by which somebody comes in."""


class Sessions:
    """The sessions of everybody."""

    def __init__(
        self, db: Database, clock: Clock, door: Door, *, idle: timedelta, lasts: timedelta
    ) -> None:
        self._db = db
        self._clock = clock
        self._door = door
        self._idle = idle
        self._lasts = lasts

    async def open(
        self,
        user_id: str,
        place: Place,
        label: str,
        source: str,
        *,
        proven: str | None = None,
        by: Shown | None = None,
        told: Callable[[Transaction, Session], None] = lambda _conn, _session: None,
    ) -> tuple[Session, str]:
        """A new session and its secret, in the person's first org.

        Args:
            proven: the hash of the password that the person has shown; another one by now lets nobody in.
            by: the identity that the person has shown; unlinked by now it lets nobody in.
            told: writes it down, in the same transaction.

        Raises:
            Unauthenticated: the account is closed, or is not opened by that any more.
        """
        secret = crypto.new_secret(store.PREFIX)
        fresh = self.fresh(user_id, place, label, source, secret)

        def act(conn: Transaction) -> Session:
            session = opened(conn, fresh, proven, by)
            told(conn, session)
            return session

        return await self._db.write(act), secret

    def fresh(
        self,
        user_id: str,
        place: Place,
        label: str,
        source: str,
        secret: str,
        org_id: str | None = None,
    ) -> Session:
        """A session that is nowhere yet."""
        now = self._clock.now()
        return Session(
            id=new_id("ses"),
            user_id=user_id,
            org_id=org_id,
            digest=crypto.digest(secret),
            place=place,
            label=label[:_MAX_LABEL],
            source=source,
            created_at=now,
            seen_at=now,
            expires_at=now + self._lasts,
        )

    async def page(
        self, user_id: str, before: tuple[datetime, str] | None, limit: int
    ) -> list[Session]:
        """The person's sessions that are not over, the newest first."""
        now = self._clock.now()
        return await self._db.read(store.page, user_id, now, self._idle, before, limit)

    async def end(
        self,
        user_id: str,
        session_id: str,
        told: Callable[[Transaction, Session], None] = lambda _conn, _session: None,
    ) -> Session:
        """End one of the person's sessions.

        Args:
            told: writes it down, in the same transaction.

        Raises:
            NotFound: the person has none of that id.
        """

        def act(conn: Transaction) -> Session:
            ended = store.end(conn, user_id, session_id)
            if ended is None:
                raise NotFound(
                    f"no session {session_id[:80]!r}", hint="GET /v1/sessions lists yours"
                )
            told(conn, ended)
            return ended

        ended = await self._db.write(act)
        self._door.forget(ended.digest)
        return ended

    async def end_others(
        self, user_id: str, kept: str, told: Callable[[Transaction, int], None]
    ) -> int:
        """End all of the person's sessions but one; returns how many. ``told`` as for `end`."""

        def act(conn: Transaction) -> int:
            count = store.end_others(conn, user_id, kept)
            told(conn, count)
            return count

        count = await self._db.write(act)
        self._door.forget_user(user_id)
        return count


def opened(
    conn: Transaction, session: Session, proven: str | None = None, by: Shown | None = None
) -> Session:
    """The session as it is kept, in the transaction of the caller."""
    user = users.held(conn, session.user_id, unchanged=True)
    if user is None or (proven is not None and user.password != proven):
        raise Unauthenticated(
            "the account is closed, or has another password by now", hint="sign in again"
        )
    # Whoever unlinks has the user's row locked, and ends the sessions that there are.
    if by is not None and identities.user_of(conn, *by) != session.user_id:
        raise Unauthenticated("the identity is linked to the account no more", hint="sign in again")
    if session.org_id is None:
        first = next(iter(members.places(conn, session.user_id)), None)
        session = replace(session, org_id=first.org_id if first else None)
    store.add(conn, session)
    return session
