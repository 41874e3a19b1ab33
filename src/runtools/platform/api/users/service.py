"""Accounts: who is an operator, and closing one. The last Admin of an org and the last operator stay.

What a person has made belongs to the org and stays there; API keys too, unless they are to end.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from runtools.errors import Conflict, Forbidden, NotFound
from runtools.platform.api.calls import Call
from runtools.platform.api.identities import store as identities
from runtools.platform.api.keys import store as keys
from runtools.platform.api.logins import store as logins
from runtools.platform.api.members import service as membership
from runtools.platform.api.members import store as members
from runtools.platform.api.resets import store as resets
from runtools.platform.api.sessions import store as sessions
from runtools.platform.api.ssh_keys import store as ssh_keys
from runtools.platform.api.users import store
from runtools.platform.api.users.look import shown
from runtools.platform.api.users.store import User
from runtools.platform.core import access
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction


def check_operator(call: Call) -> None:
    """Refuse who has a part of the operator's right: what is done to a person reaches all orgs of theirs.

    Raises:
        Forbidden: the caller has a part of it, or none.
    """
    if not access.within(access.OPERATOR, call.who.scopes):
        raise Forbidden(
            "that needs the whole of the operator's right, platform:*",
            hint="the key in client.json of the home has it, and so have the operators",
            details={"needed": f"{access.PLATFORM}:*", "scopes": sorted(call.who.scopes)},
        )


async def set_operator(call: Call, user_id: str, *, operator: bool, revoke_keys: bool) -> User:
    """Make somebody an operator, or no more; with ``revoke_keys`` keys with that right which they made end.

    Raises:
        NotFound: there is no such account, or it is closed.
        Conflict: nobody would be the operator any more.
    """
    check_operator(call)
    now = call.platform.clock.now()
    user, ended = await call.settled(
        lambda done: http.one(shown(done[0])), _set_operator, user_id, operator, revoke_keys, now
    )
    _forget(call, user_id, ended)
    return user


async def close(call: Call, user_id: str, status: int, *, revoke_keys: bool) -> User:
    """Close an account: nobody is let in by it any more, and it is in no org.

    The line that tells of it is written into the log of every org that the person was in.

    Args:
        status: how it is answered.

    Raises:
        NotFound: there is no such account, or it is closed.
        Conflict: it is the last Admin of an org, or the last operator.
    """
    now = call.platform.clock.now()
    user, ended = await call.platform.db.write(_close, call, user_id, status, revoke_keys, now)
    _forget(call, user_id, ended)
    return user


def _forget(call: Call, user_id: str, keys_ended: list[str]) -> None:
    call.platform.door.forget_user(user_id)
    for one in keys_ended:
        call.platform.door.forget(one)


def _set_operator(
    conn: Transaction, user_id: str, operator: bool, revoke_keys: bool, now: datetime
) -> tuple[User, list[str]]:
    user = _locked(conn, user_id)
    ended: list[str] = []
    if not operator:
        if revoke_keys:
            ended = keys.revoke_all_made_by(conn, user_id, now, access.PLATFORM)
        _keep_an_operator(conn, user, now)
    store.set_operator(conn, user_id, operator=operator)
    return replace(user, is_operator=operator), ended


def _close(
    conn: Transaction, call: Call, user_id: str, status: int, revoke_keys: bool, now: datetime
) -> tuple[User, list[str]]:
    user = _locked(conn, user_id)
    places = members.places(conn, user_id)
    for place in sorted(places, key=lambda place: place.org_id):
        membership.leave(conn, place.org_id, user_id)
    ended = []
    if revoke_keys:
        ssh_keys.remove_all_made_by(conn, [user_id, *keys.made_by(conn, user_id)])
        ended = keys.revoke_all_made_by(conn, user_id, now)
    _keep_an_operator(conn, user, now)
    resets.end(conn, user_id)
    logins.end_approved(conn, user_id)
    identities.unlink_all(conn, user_id)
    sessions.end_others(conn, user_id, None)
    store.close(conn, user_id, now)
    closed = replace(user, email="", is_operator=False, password=None, closed_at=now)
    call.settle(conn, http.one(shown(closed)), status, [place.org_id for place in places])
    return closed, ended


def _locked(conn: Transaction, user_id: str) -> User:
    user = store.locked(conn, user_id)
    if user is None or user.closed_at is not None:
        raise NotFound(f"nobody has the id {user_id[:80]!r}", hint="runtools people list")
    return user


def _keep_an_operator(conn: Transaction, leaving: User, now: datetime) -> None:
    if not leaving.is_operator:
        return
    if not store.has_operator(conn, leaving.id) and not keys.has_operator(conn, now):
        raise Conflict(
            "that is the last operator of the platform",
            hint="make somebody else one first: runtools people operator USER_ID on",
        )
