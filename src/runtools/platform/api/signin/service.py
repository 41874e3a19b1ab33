"""Signing in by e-mail address and password.

Whether an account exists is told by nothing: the answer, the work and the waiting are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from runtools.errors import Forbidden, RateLimited, Unauthenticated
from runtools.platform.api.calls import Call
from runtools.platform.api.logins import store as logins
from runtools.platform.api.platform import Platform
from runtools.platform.api.sessions import store as sessions
from runtools.platform.api.signin import store
from runtools.platform.api.users import store as users
from runtools.platform.api.users.store import User
from runtools.platform.kit import rates
from runtools.platform.kit.crypto import digest
from runtools.platform.kit.db import Transaction


async def by_password(platform: Platform, email: str, password: str, source: str) -> User:
    """The user of that address and password, with the hash of it that is kept.

    Raises:
        Unauthenticated: there is none.
        RateLimited: too many have failed for that address, or from there.
    """
    source = rates.source(source)
    at, everywhere = digest(f"account-at {source} {email}"), digest(f"account {email}")
    from_there = digest(f"source {source}")
    await slow_down(platform, {at: "account-at", everywhere: "account", from_there: "source"})
    user = await platform.db.read(users.by_email, email)
    kept = None if user is None else user.password
    if not await platform.passwords.check(kept, password) or user is None or kept is None:
        raise Unauthenticated(
            "e-mail address or password is wrong",
            hint="who has no account yet needs an invitation",
        )
    await forgive(platform, own=[at], shared=[everywhere, from_there])
    if platform.passwords.is_old(kept):
        fresh = await platform.passwords.hash(password)
        if await platform.db.write(users.set_password, user.id, kept, fresh):
            return replace(user, password=fresh)
    return user


async def change_password(call: Call, current: str, new: str, look: Callable[[int], bytes]) -> int:
    """Another password for the person who calls and knows the present one; how many sessions ended.

    Every other session ends with the old one, and what was let in and is not fetched yet.

    Args:
        look: how the number looks in the answer, which is kept with what it tells of.

    Raises:
        Forbidden: that is not the present one, or there is none: the identity provider lets the person in.
        RateLimited: too many were wrong.
    """
    guess = digest(f"password {call.person}")
    await slow_down(call.platform, {guess: "account-at"})
    user = await call.platform.db.read(users.find, call.person)
    kept = None if user is None else user.password
    if not await call.platform.passwords.check(kept, current) or kept is None:
        raise _wrong()
    fresh = await call.platform.passwords.hash(new)
    ended = await call.settled(look, _change, call.person, kept, fresh, call.who.id)
    call.platform.door.forget_user(call.person)
    await forgive(call.platform, own=[guess])
    return ended


def _change(conn: Transaction, user_id: str, kept: str, fresh: str, session_id: str) -> int:
    if not users.set_password(conn, user_id, kept, fresh):
        raise _wrong()
    # In this order: who fetches a login at the same time has opened a session once its row is free.
    logins.end_approved(conn, user_id)
    return sessions.end_others(conn, user_id, session_id)


async def show_password(call: Call, password: str | None) -> str | None:
    """Have the person who calls show the present password; returns its hash. None: the account has none.

    Raises:
        Forbidden: that is not it.
        RateLimited: too many were wrong.
    """
    user = await call.platform.db.read(users.find, call.person)
    if user is None or user.password is None:
        return None
    guess = digest(f"password {call.person}")
    await slow_down(call.platform, {guess: "account-at"})
    if not await call.platform.passwords.check(user.password, password or ""):
        raise _wrong()
    await forgive(call.platform, own=[guess])
    return user.password


def _wrong() -> Forbidden:
    return Forbidden(
        "that is not the present password",
        hint="who has none, or has forgotten it, asks an Admin or the operator for a link to reset it",
    )


async def forgive(
    platform: Platform, *, own: Sequence[str] = (), shared: Sequence[str] = ()
) -> None:
    """What was counted was no failure: the first are forgotten, of the others one less is counted."""
    await platform.db.write(store.succeeded, own, shared)


async def slow_down(platform: Platform, kinds: dict[str, str]) -> None:
    """Count an attempt, or refuse it while who guesses has to wait.

    Raises:
        RateLimited: too many have failed.
    """
    now = platform.clock.now()
    until = await platform.db.write(store.begin, kinds, now)
    if until is not None:
        seconds = math.ceil((until - now).total_seconds())
        raise RateLimited(
            f"too many attempts have failed; try again in {seconds} s",
            details={"retryAfterSeconds": seconds},
        )
