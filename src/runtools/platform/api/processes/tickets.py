"""Who may open a WebSocket: a program by its key, a browser by a ticket.

A browser cannot send a key with a WebSocket, and lets any page open one to anywhere. So a page gets a
ticket from a program that has the key: for one terminal, for pages of one origin, once, for 30 seconds. It
travels among the subprotocols, where no log shows it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from starlette.types import Scope

from runtools.errors import Forbidden, Unauthenticated
from runtools.platform.api.callers import sent
from runtools.platform.api.callers.door import Door
from runtools.platform.api.processes import store
from runtools.platform.api.processes.store import Ticket
from runtools.platform.core.access import Caller
from runtools.platform.kit import crypto, http
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database
from runtools.sdk.shapes.processes import TICKET_PREFIX

LASTS = timedelta(seconds=30)


class Tickets:
    """The doorkeeper of WebSockets."""

    def __init__(
        self, db: Database, clock: Clock, door: Door, idle: timedelta, public_url: str
    ) -> None:
        self._db = db
        self._clock = clock
        self._door = door
        self._idle = idle
        self._public_url = public_url

    async def make(self, caller: Caller, path: str, origin: str) -> tuple[str, datetime]:
        """A ticket for one path and pages of one origin, and when it is over."""
        secret = crypto.new_secret("")
        now = self._clock.now()
        ticket = Ticket(crypto.digest(secret), caller.id, path, origin, now + LASTS)
        await self._db.write(store.add, ticket, now)
        return secret, ticket.expires_at

    async def admit(self, scope: Scope, secret: str | None) -> Caller:
        """Who opens this WebSocket; ``secret`` is the key that a program sent.

        Raises:
            Unauthenticated: neither a good key nor a good ticket.
            Forbidden: a page of a browser without a ticket for its origin.
        """
        origin = http.header(scope, b"origin")
        offered = [name for name in scope["subprotocols"] if name.startswith(TICKET_PREFIX)]
        if offered:
            ticket = offered[0].removeprefix(TICKET_PREFIX)
            return await self._redeem(ticket, scope["path"], origin)
        if origin is not None:
            session = sent.session(scope)
            if session is not None and sent.is_own(scope, self._public_url):
                return await self._door.admit(session)
            raise Forbidden(
                "a page of a browser needs a ticket, or to be one of ours with a session",
                hint="POST …/terminal-ticket with the page's origin makes one",
            )
        return await self._door.admit(secret)

    async def _redeem(self, secret: str, path: str, origin: bytes | None) -> Caller:
        found = await self._db.write(store.take, crypto.digest(secret), self._idle)
        good = (
            found is not None
            and self._clock.now()
            < min(found[0].expires_at, found[1].expires_at or found[0].expires_at)
            and crypto.same(found[0].path, path)
        )
        if found is None or not good:
            raise Unauthenticated(
                "the ticket is unknown, used, over or for another terminal",
                hint="a ticket is good once, for 30 seconds; make another",
            )
        if origin is None or not crypto.same(found[0].origin, origin.decode("latin-1")):
            raise Forbidden(
                "the ticket was made for pages of another origin",
                hint=f"it is good for {found[0].origin}",
            )
        return found[1]
