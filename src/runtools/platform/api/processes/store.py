"""Tickets for terminals in the database: their digests, never themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import Column, Connection, Index, String, Table, delete, insert

from runtools.platform.api.keys import store as keys
from runtools.platform.api.sessions import store as sessions
from runtools.platform.core.access import Caller
from runtools.platform.kit.db import Moment, metadata

tickets = Table(
    "terminal_tickets",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("caller_id", String(24), nullable=False),
    Column("path", String(255), nullable=False),
    Column("origin", String(255), nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index(None, "expires_at"),
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket opens, for whom, from where and until when."""

    digest: str
    caller_id: str
    path: str
    origin: str
    expires_at: datetime


def add(conn: Connection, ticket: Ticket, now: datetime) -> None:
    """Keep a new ticket; those whose time is over go."""
    conn.execute(delete(tickets).where(tickets.c.expires_at <= now))
    conn.execute(insert(tickets).values(**asdict(ticket)))


def take(conn: Connection, digest: str, idle: timedelta) -> tuple[Ticket, Caller] | None:
    """A ticket, which is none any more after this, and who it stands for, if that is still somebody."""
    row = (
        conn.execute(delete(tickets).where(tickets.c.digest == digest).returning(*tickets.c))
        .mappings()
        .first()
    )
    if row is None:
        return None
    ticket = Ticket(**row)
    if ticket.caller_id.startswith("ses_"):
        caller = sessions.living(conn, ticket.caller_id, idle)
    else:
        caller = keys.living(conn, ticket.caller_id)
    return None if caller is None else (ticket, caller)
