"""What can be done with dev URLs: looking, choosing who may enter, making links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from runtools.errors import SandboxStopped
from runtools.platform.api.calls import Call
from runtools.platform.api.dev_urls import store
from runtools.platform.api.dev_urls.store import ALL, Choice, Kind, Link
from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes.load import load
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.core.access import Caller
from runtools.platform.core.dev_urls import LINK, is_open
from runtools.platform.core.dev_urls import DevUrls as Names
from runtools.platform.core.ids import new_id
from runtools.platform.kit import crypto, http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.dev_urls import (
    Access,
    DevUrl,
    DevUrlAccess,
    DevUrlLink,
    DevUrls,
    OrgDevUrls,
)

PREFIX = "rt_link_"
NEEDED = "sandbox:write"
"""To enter is to use what runs inside."""

_TICKET = timedelta(seconds=60)


def names(platform: Platform) -> Names:
    """What dev URLs are called here."""
    return Names.of(platform.settings.dev_url_base)


# --- looking and choosing ---


async def look(call: Call, ref: str) -> DevUrls:
    """The addresses of a sandbox."""
    record = await load(call.platform, call.org, ref)
    return await call.platform.db.read(
        _look, names(call.platform), record, call.platform.clock.now()
    )


async def look_at(call: Call, ref: str, port: int) -> DevUrl:
    """The address of one port."""
    check(port)
    return _at(await look(call, ref), port)


def _at(shown: DevUrls, port: int) -> DevUrl:
    found = next((one for one in shown.ports if one.port == port), None)
    if found is not None:
        return found
    url = shown.pattern.replace("{port}", str(port))
    return DevUrl(port=port, url=url, access=shown.access, decided_by=shown.decided_by, links=0)


async def choose(call: Call, ref: str, wanted: DevUrlAccess) -> DevUrls:
    """Decide who may enter a port, or all that have no choice of their own."""
    if wanted.port is not None:
        check(wanted.port)
    record = await _living(call, ref)
    port, now = wanted.port or ALL, call.platform.clock.now()
    call.subject = record.id

    def act(conn: Transaction) -> DevUrls:
        store.choose(conn, call.org, record.id, port, wanted.access, call.actor, now)
        return _look(conn, names(call.platform), record, now)

    return await call.settled(http.one, act)


async def forget(call: Call, ref: str, port: int | None) -> DevUrls:
    """Take the choice about a port back and end its links, or all of a sandbox."""
    if port is not None:
        check(port)
    record = await load(call.platform, call.org, ref)
    call.subject, now = record.id, call.platform.clock.now()

    def act(conn: Transaction) -> DevUrls:
        store.forget(conn, call.org, record.id, port)
        return _look(conn, names(call.platform), record, now)

    return await call.settled(http.one, act)


async def choose_for_org(call: Call, wanted: OrgDevUrls) -> None:
    """Decide for all sandboxes of the org without a choice of their own."""
    call.subject, now = call.org, call.platform.clock.now()

    def act(conn: Transaction) -> OrgDevUrls:
        store.choose(conn, call.org, None, ALL, wanted.access, call.actor, now)
        return wanted

    await call.settled(http.one, act)


async def of_org(call: Call) -> Access:
    """What the org has chosen."""
    return await call.platform.db.read(store.of_org, call.org) or "private"


def check(port: int) -> None:
    """Refuse a port that has no URL.

    Raises:
        InvalidRequest: SSH's, the guest agent's, or none.
    """
    if not is_open(port):
        raise http.wrong_field(
            "port",
            "has no URL",
            hint="any port from 1 to 65535 has one but SSH's (22) and the guest agent's (7709)",
        )


# --- links ---


async def link(call: Call, ref: str, port: int, seconds: int) -> DevUrlLink:
    """Make a link that opens a port for a while, as the caller could."""
    check(port)
    record = await _living(call, ref)
    call.subject = record.id
    made, secret = _link(call.platform, call.who, record, port, "link", timedelta(seconds=seconds))
    before = await call.platform.db.read(store.made_by, call.org, call.op)
    await call.platform.db.write(store.add, replace(made, op=call.op), before)
    return DevUrlLink(
        url=_with(f"{names(call.platform).url(record.id, port)}/", secret),
        expires_at=made.expires_at,
    )


async def end_links(call: Call, ref: str, port: int) -> DevUrl:
    """End all links to a port."""
    check(port)
    record = await load(call.platform, call.org, ref)
    call.subject = record.id
    now = call.platform.clock.now()

    def act(conn: Transaction) -> DevUrl:
        store.end_links(conn, call.org, record.id, port)
        return _at(_look(conn, names(call.platform), record, now), port)

    return await call.settled(http.one, act)


async def ticket(call: Call, sandbox_id: str, port: int, url: str) -> str:
    """The address of a private port as the browser of who is signed in may open it, once.

    Raises:
        NotFound: the org has no such sandbox.
    """
    record = await load(call.platform, call.org, sandbox_id)
    made, secret = _link(call.platform, call.who, record, port, "ticket", _TICKET)
    await call.platform.db.write(store.add, made)
    return _with(url, secret)


def _link(
    platform: Platform, who: Caller, record: Record, port: int, kind: Kind, lasts: timedelta
) -> tuple[Link, str]:
    secret, now = crypto.new_secret(PREFIX), platform.clock.now()
    made = Link(
        digest=crypto.digest(secret),
        org_id=record.org_id,
        sandbox_id=record.id,
        port=port,
        kind=kind,
        maker=who.actor,
        maker_kind=who.kind,
        maker_digest=who.digest,
        op=new_id("opn"),
        created_at=now,
        expires_at=now + lasts,
    )
    return made, secret


def _with(url: str, secret: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{LINK}={secret}"


def _look(conn: Transaction, known: Names, record: Record, now: datetime) -> DevUrls:
    chosen = store.choices(conn, record.org_id, record.id)
    links = store.counts(conn, record.org_id, record.id, now)
    rest = _rest(conn, record, chosen)
    ports = [
        DevUrl(
            port=port,
            url=known.url(record.id, port),
            access=chosen.get(port, rest.access),
            decided_by="port" if port in chosen else rest.decided_by,
            links=links.get(port, 0),
        )
        for port in sorted({*chosen, *links} - {ALL})
    ]
    pattern = known.url(record.id, ALL).replace("//0-", "//{port}-")
    return DevUrls(pattern=pattern, access=rest.access, decided_by=rest.decided_by, ports=ports)


def _rest(conn: Transaction, record: Record, chosen: Mapping[int, Access]) -> Choice:
    """What holds for ports without a choice of their own."""
    if ALL in chosen:
        return Choice(chosen[ALL], "sandbox")
    of_all = store.of_org(conn, record.org_id)
    return Choice("private", "default") if of_all is None else Choice(of_all, "org")


async def _living(call: Call, ref: str) -> Record:
    record = await load(call.platform, call.org, ref)
    if record.state == "stopped":
        raise SandboxStopped(
            f"{record.id} has stopped", hint=f"runtools sandbox why {record.id} tells what ended it"
        )
    return record
