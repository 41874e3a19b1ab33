"""The doorkeeper of one process: who calls with a secret, and whether that still holds.

A secret that was found good is believed, so that a request costs no query for it: a session, or the token
of a run, for under a second; a key until one is revoked, which is looked for as often (`callers.known`). So
a revocation, the end of a membership or another role acts within one second everywhere, at once in this
process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from runtools.errors import Unauthenticated
from runtools.platform.api.callers import parts
from runtools.platform.api.callers.known import KnownKeys
from runtools.platform.api.callers.parts import Parts
from runtools.platform.api.keys import store as keys
from runtools.platform.api.runs import store as runs
from runtools.platform.api.sessions import store as sessions
from runtools.platform.core.access import Caller, Kind
from runtools.platform.kit import crypto
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database, Transaction

ItemT = TypeVar("ItemT")

RUN_PREFIX = "rt_run_"
BELIEVED_SECONDS = 0.8
_MAX_BELIEVED = 10_000

_NOTHING_SENT = Unauthenticated(
    "no API key was sent", hint="send it as `Authorization: Bearer rt_live_…` or `X-API-Key`"
)
_BAD_KEY = Unauthenticated(
    "the API key is unknown, expired or revoked", hint="the first key is in client.json of the home"
)
_BAD_SESSION = Unauthenticated(
    "the session is unknown, over or revoked", hint="sign in again: runtools login"
)
_BAD_RUN = Unauthenticated(
    "the token of a run is unknown, or the run is driven under it no more",
    hint="who takes the run gets another",
)
_BAD_PART = Unauthenticated(
    "the token of a part is unknown", hint="every start of the platform makes others"
)

_BAD: Mapping[Kind, Unauthenticated] = {
    "key": _BAD_KEY,
    "session": _BAD_SESSION,
    "part": _BAD_PART,
    "run": _BAD_RUN,
}


class Door:
    """Lets callers in."""

    def __init__(self, db: Database, clock: Clock, idle: timedelta, of_platform: Parts) -> None:
        self._db = db
        self._clock = clock
        self._idle = idle
        self._parts = of_platform
        self._keys = KnownKeys(db, clock, BELIEVED_SECONDS)
        self._believed: dict[str, tuple[float, Caller]] = {}
        self._used: dict[str, datetime] = {}
        self._writing = asyncio.Lock()

    async def admit(self, secret: str | None) -> Caller:
        """Who calls with this secret.

        Raises:
            Unauthenticated: nothing was sent, or what nobody has (any more).
        """
        if secret is None:
            raise Unauthenticated(_NOTHING_SENT.message, hint=_NOTHING_SENT.hint)
        if secret.startswith(parts.PREFIX):
            return self._part(secret)
        kind = _kind(secret)
        found = await self._known(crypto.digest(secret), kind)
        if found is None:
            wrong = _BAD[kind]
            raise Unauthenticated(wrong.message, hint=wrong.hint)
        self._note_use(found)
        return found

    def _part(self, secret: str) -> Caller:
        found = self._parts.caller(crypto.digest(secret))
        if found is None:
            raise Unauthenticated(_BAD_PART.message, hint=_BAD_PART.hint)
        return found

    async def still_good(self, caller: Caller) -> bool:
        """Whether who was admitted still has the same rights; for streams that last."""
        if caller.kind == "part":
            return self._parts.caller(caller.digest) is not None
        found = await self._known(caller.digest, caller.kind)
        if found is None:
            return False
        self._note_use(found)
        return found.org_id == caller.org_id and found.scopes == caller.scopes

    async def caller_of(self, digest: str, kind: Kind) -> Caller | None:
        """Who has the secret of that digest now, and with which rights; for what they made.

        That somebody uses what they made is no use of the secret: it keeps no session from its end.
        """
        return await self._known(digest, kind)

    async def while_good(
        self, caller: Caller, items: AsyncIterator[ItemT]
    ) -> AsyncGenerator[ItemT, None]:
        """The items as they come, for as long as the caller's rights hold."""
        coming: asyncio.Task[ItemT] | None = None
        try:
            while await self.still_good(caller):
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

    def forget(self, digest: str) -> None:
        """Believe it no longer: the next request asks the database."""
        self._keys.forget(digest)
        self._believed.pop(digest, None)

    def forget_user(self, user_id: str) -> None:
        """Believe none of the person's sessions any longer."""
        for digest, (_, caller) in list(self._believed.items()):
            if caller.user_id == user_id:
                del self._believed[digest]

    async def write_uses(self) -> None:
        """Write down when keys and sessions were last used, behind whoever is at it already."""
        async with self._writing:
            times, self._used = self._used, {}
            if times:
                await self._db.write(_used, times)

    async def _known(self, digest: str, kind: Kind) -> Caller | None:
        found = await (self._keys.caller(digest) if kind == "key" else self._find(digest, kind))
        if found is None or not crypto.same(found.digest, digest) or self._is_over(found):
            self.forget(digest)
            return None
        return found

    async def _find(self, digest: str, kind: Kind) -> Caller | None:
        """Who has that session, or drives a run with that token."""
        now = self._clock.monotonic()
        at, caller = self._believed.get(digest, (0.0, None))
        if caller is not None and now - at < BELIEVED_SECONDS and not self._is_over(caller):
            return caller
        if kind == "session":
            found = await self._db.read(sessions.caller, digest, self._idle)
        else:
            found = await self._db.read(runs.caller, digest)
        if found is not None:
            if len(self._believed) >= _MAX_BELIEVED:
                self._believed.clear()
            self._believed[digest] = (now, found)
        return found

    def _note_use(self, caller: Caller) -> None:
        if caller.kind != "run":
            self._used[caller.id] = self._clock.now()

    def _is_over(self, caller: Caller) -> bool:
        return caller.expires_at is not None and caller.expires_at <= self._clock.now()


def _kind(secret: str) -> Kind:
    if secret.startswith(sessions.PREFIX):
        return "session"
    return "run" if secret.startswith(RUN_PREFIX) else "key"


def _used(conn: Transaction, times: Mapping[str, datetime]) -> None:
    of_sessions = {name: at for name, at in times.items() if name.startswith("ses_")}
    sessions.used(conn, of_sessions)
    keys.used(conn, {name: at for name, at in times.items() if name not in of_sessions})
