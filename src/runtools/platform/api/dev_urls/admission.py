"""Letting in: who may enter a port of a sandbox, who may stay, and what waking one counts as.

What is private, another org's or nowhere gets one answer, by the same queries and no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from runtools.errors import NotFound, Unauthenticated
from runtools.platform.api.calls import behalf
from runtools.platform.api.dev_urls import store
from runtools.platform.api.dev_urls.service import NEEDED, PREFIX
from runtools.platform.api.dev_urls.store import Link, Place
from runtools.platform.api.limits import store as limits
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.platform import Platform
from runtools.platform.api.sandboxes import inside, observe
from runtools.platform.core.access import Caller, covers
from runtools.platform.core.dev_urls import is_open
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.admitting import Asked, Stay, Verdict
from runtools.platform.kit import crypto
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts

_COOKIE = timedelta(hours=12)
_UNKNOWN = Verdict(answer="unknown")
_NOWHERE = ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the records say of a question.

    Attributes:
        links: those that were shown and open the port.
        wakes: the org has no limit on what runs.
    """

    place: Place | None
    links: Sequence[Link]
    wakes: bool


async def admit(platform: Platform, asked: Asked) -> Verdict:
    """Whether somebody may enter."""
    now, usual = platform.clock.now(), standard(platform.settings)
    [seen] = await platform.db.read(_look, [asked], usual, now)
    # Whoever shows something is looked at, though there be no such place: that takes its time, too.
    opens = await _opens(platform, asked, seen.place)
    if seen.place is None or not is_open(asked.port):
        return _UNKNOWN
    entered = await _by_link(platform, asked, seen.links, now)
    if seen.place.access == "public":
        entered = (entered or Verdict(answer="enter")).model_copy(update={"public": True})
    elif entered is None and opens:
        entered = Verdict(answer="enter")
    if entered is None:
        return _UNKNOWN
    return entered.model_copy(update={"wakes": seen.wakes})


async def stays(platform: Platform, many: Sequence[Asked]) -> list[Stay]:
    """Whether each who was let in still may be there."""
    now, usual = platform.clock.now(), standard(platform.settings)
    asked = [one.model_copy(update={"link": None}) for one in many]
    seen = await platform.db.read(_look, asked, usual, now)
    return [
        Stay(may=await _stays(platform, one, found, now), wakes=found.wakes)
        for one, found in zip(asked, seen, strict=True)
    ]


async def waken(platform: Platform, sandbox_id: str) -> None:
    """Have a sandbox awake, counted among what its org runs.

    Raises:
        QuotaExceeded: its org runs as much as it may.
        NotFound, SandboxStopped: there is nothing to wake.
    """
    place = await platform.db.read(store.place, sandbox_id, store.ALL)
    if place is None:
        raise NotFound(f"there is no sandbox {sandbox_id[:80]!r}")
    await inside.enter(behalf(platform, place.org_id, observe.PLATFORM, new_id("opn")), sandbox_id)


def _look(conn: Transaction, many: Sequence[Asked], usual: Amounts, now: datetime) -> list[_Seen]:
    known: dict[str, bool] = {}  # orgs, and whether what they have wakes by itself
    seen = []
    for asked in many:
        place = store.place(conn, asked.sandbox_id, asked.port)
        org = _NOWHERE if place is None else place.org_id
        if org not in known:
            known[org] = not limits.bounds_what_runs(conn, org, usual)
        digests = [crypto.digest(secret) for secret in _secrets(asked)]
        links = store.opening(conn, asked.sandbox_id, asked.port, digests, now) if digests else []
        seen.append(_Seen(place, links, known[org]))
    return seen


def _secrets(asked: Asked) -> list[str]:
    return [*([asked.link] if asked.link else []), *asked.cookies]


async def _stays(platform: Platform, asked: Asked, seen: _Seen, now: datetime) -> bool:
    if seen.place is None or not is_open(asked.port):
        return False
    if seen.place.access == "public" or await _opens(platform, asked, seen.place):
        return True
    return await _by_link(platform, asked, seen.links, now) is not None


async def _opens(platform: Platform, asked: Asked, place: Place | None) -> bool:
    """Whether the key or session that was shown does."""
    if asked.key is None:
        return False
    try:
        caller = await platform.door.admit(asked.key)
    except Unauthenticated:
        return False
    # A run may enter the sandbox that it works in, and no other.
    is_its = caller.sandbox_id in (None, asked.sandbox_id)
    is_there = place is not None and caller.org_id == place.org_id
    return is_its and is_there and covers(caller.scopes, NEEDED)


async def _by_link(
    platform: Platform, asked: Asked, found: Sequence[Link], now: datetime
) -> Verdict | None:
    """What a link, or what one has become, does; None: nothing."""
    for one in found:
        is_link = asked.link is not None and crypto.same(one.digest, crypto.digest(asked.link))
        if one.kind == ("cookie" if is_link else "ticket") or not await _still_may(platform, one):
            continue
        if not is_link:
            return Verdict(answer="enter")
        seconds = int((one.expires_at - now).total_seconds())
        if one.kind == "link":
            return Verdict(answer="enter", cookie=asked.link, seconds=seconds)
        secret = crypto.new_secret(PREFIX)
        cookie = replace(
            one,
            digest=crypto.digest(secret),
            kind="cookie",
            created_at=now,
            expires_at=now + _COOKIE,
        )
        if await platform.db.write(store.redeem, one, cookie):
            seconds = int(_COOKIE.total_seconds())
            return Verdict(answer="enter", cookie=secret, seconds=seconds)
    return None


async def _still_may(platform: Platform, made: Link) -> bool:
    """A link opens no longer than its maker could still enter; an agent's outlives its run."""
    if made.maker_kind == "run":
        return True
    maker: Caller | None = await platform.door.caller_of(made.maker_digest, made.maker_kind)
    return maker is not None and maker.org_id == made.org_id and covers(maker.scopes, NEEDED)
