"""Links that reset a password: who may make one for whom, and what becomes of who uses it.

Who has the link is let in as that person. So the operator may make one for anybody, and an Admin only for
who is in that org alone and may do no more than the Admin: nobody comes into another org by it. Both must
still hold when it is used.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from runtools.errors import Forbidden, NotFound
from runtools.platform.api.callers import makers
from runtools.platform.api.calls import Call
from runtools.platform.api.logins import store as logins
from runtools.platform.api.members import store as members
from runtools.platform.api.resets import store
from runtools.platform.api.resets.store import Reset
from runtools.platform.api.sessions import store as sessions
from runtools.platform.api.signin import service as signin
from runtools.platform.api.users import store as users
from runtools.platform.api.users.store import User
from runtools.platform.core import access
from runtools.platform.kit import crypto
from runtools.platform.kit.crypto import digest
from runtools.platform.kit.db import Transaction

PREFIX = "rt_reset_"
LASTS = timedelta(hours=24)


async def create(call: Call, user_id: str, org_id: str | None) -> tuple[str, datetime]:
    """The address of a link for a person, for an Admin of an org or (None) the operator; and its end.

    Raises:
        NotFound: there is no such person (in the org).
        Forbidden: the caller may not.
        Unavailable: the same request has made another in the same moment.
        Conflict: another request has.
    """
    code, now = crypto.new_secret(PREFIX), call.platform.clock.now()
    reset = Reset(digest(code), user_id, org_id, call.actor, now, now + LASTS, call.op)
    if user_id == call.who.user_id:
        raise Forbidden(
            "you cannot reset your own password",
            hint="change it with the present one: runtools auth password",
        )
    before = await call.platform.db.read(store.of_person, user_id)
    await call.platform.db.write(_put, reset, call.who.scopes, before)
    return f"{call.platform.public_url}/reset#{code}", reset.expires_at


async def use(call: Call, code: str, password: str, status: int) -> Reset:
    """Another password for the person whom the link is for, whose sessions all end.

    Args:
        status: how it is answered.

    Raises:
        NotFound: the code is unknown, used or over, or who made it may not any more.
    """
    platform = call.platform
    now = platform.clock.now()
    if await platform.db.read(store.find, digest(code), now) is None:
        raise _over()  # before the work of hashing
    kept = await platform.passwords.hash(password)
    reset, email = await platform.db.write(_use, call, digest(code), kept, status, now)
    platform.door.forget_user(reset.user_id)
    await signin.forgive(platform, own=[digest(f"account {email}")])
    return reset


def _put(conn: Transaction, reset: Reset, scopes: frozenset[str], before: str | None) -> None:
    user = users.held(conn, reset.user_id)
    if user is None or not _is_theirs(conn, reset, user):
        raise _unknown(reset)
    if not _may(conn, reset, user, scopes):
        raise Forbidden(
            "only the operator can let that person set another password",
            hint="an Admin can for who is in the organisation alone, and may do no more than the Admin",
        )
    store.put(conn, reset, before)


def _use(
    conn: Transaction, call: Call, code_digest: str, kept: str, status: int, now: datetime
) -> tuple[Reset, str]:
    found = store.find(conn, code_digest, now)
    user = None if found is None else users.held(conn, found.user_id)
    if found is None or user is None or not _still_given(conn, found, user, now):
        raise _over()
    # The user first, then what depends on it: in the order of who changes a password.
    if not users.reset_password(conn, user.id, kept) or not store.end(conn, user.id):
        raise _over()
    logins.end_approved(conn, user.id)
    sessions.end_others(conn, user.id, None)
    call.subject, call.line_org = user.id, found.org_id
    call.tell(conn, status)
    return found, user.email


def _still_given(conn: Transaction, reset: Reset, user: User, now: datetime) -> bool:
    """Whether who made it could make it now."""
    scopes, is_there = makers.held(conn, reset.created_by, reset.org_id, now)
    if reset.org_id is not None and not (is_there and access.covers(scopes, "org:write")):
        return False
    return _is_theirs(conn, reset, user) and _may(conn, reset, user, scopes)


def _is_theirs(conn: Transaction, reset: Reset, user: User) -> bool:
    return reset.org_id is None or members.find(conn, reset.org_id, user.id) is not None


def _may(conn: Transaction, reset: Reset, user: User, scopes: frozenset[str]) -> bool:
    if reset.org_id is None:
        return access.within(access.OPERATOR, scopes)
    places = members.places(conn, user.id)
    alone = [place.org_id for place in places] == [reset.org_id]
    role = access.of_person(places[0].role if alone else None, operator=user.is_operator)
    return alone and access.within(role, scopes)


def _unknown(reset: Reset) -> NotFound:
    where = "runtools people list" if reset.org_id is None else "runtools member list"
    return NotFound(f"nobody has the id {reset.user_id[:80]!r}", hint=where)


def _over() -> NotFound:
    return NotFound("the link is unknown, used or over", hint="ask for another one")
