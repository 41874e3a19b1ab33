"""Members: another role, and the end of a membership. An org never loses its last Admin."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from runtools.errors import Conflict, Forbidden, NotFound
from runtools.platform.api.calls import Call
from runtools.platform.api.keys import store as keys
from runtools.platform.api.members import store
from runtools.platform.api.members.store import Member
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.ssh_keys import store as ssh_keys
from runtools.platform.core import access
from runtools.platform.core.access import Caller, Role
from runtools.platform.kit.db import Transaction

Look = Callable[[Member], bytes]
"""How a member is shown in an answer, which is kept with what it tells of."""


async def set_role(call: Call, user_id: str, role: Role, look: Look) -> Member:
    """Another role for a member.

    Raises:
        NotFound: the org has no such member.
        Forbidden: the old or the new role may do more than the caller.
        Conflict: it is the last Admin.
    """
    done = await call.settled(look, _set_role, call.org, call.who, user_id, role)
    call.platform.door.forget_user(user_id)
    return done


async def remove(call: Call, user_id: str, look: Look, *, revoke_keys: bool) -> Member:
    """Take a member out of the org, and with ``revoke_keys`` the API and SSH keys that the member made.

    Raises:
        NotFound: the org has no such member.
        Forbidden: the member may do more than the caller, and is another one.
        Conflict: it is the last Admin.
    """
    now = call.platform.clock.now()
    done, ended = await call.settled(
        lambda done: look(done[0]), _remove, call.org, call.who, user_id, revoke_keys, now
    )
    call.platform.door.forget_user(user_id)
    for digest in ended:
        call.platform.door.forget(digest)
    return done


def leave(conn: Transaction, org_id: str, user_id: str) -> None:
    """Take somebody out who may always go, in the transaction of the caller.

    Raises:
        Conflict: it is the last Admin.
    """
    orgs.lock(conn, org_id)
    there = store.find(conn, org_id, user_id)
    if there is not None:
        _keep_an_admin(conn, there)
        store.remove(conn, org_id, user_id)


def _set_role(conn: Transaction, org_id: str, who: Caller, user_id: str, role: Role) -> Member:
    there = _held(conn, org_id, who, user_id)
    if not access.within(access.ROLES[role], who.scopes):
        raise Forbidden("you can give nobody a role that may do more than you")
    if role != "admin":
        _keep_an_admin(conn, there)
    store.set_role(conn, org_id, user_id, role)
    return store.find(conn, org_id, user_id) or there


def _remove(
    conn: Transaction, org_id: str, who: Caller, user_id: str, revoke_keys: bool, now: datetime
) -> tuple[Member, list[str]]:
    there = _held(conn, org_id, who, user_id)
    _keep_an_admin(conn, there)
    store.remove(conn, org_id, user_id)
    if not revoke_keys:
        return there, []
    makers = [user_id, *keys.made_by(conn, user_id)]
    ssh_keys.remove_made_by(conn, org_id, makers)
    return there, keys.revoke_made_by(conn, org_id, user_id, now)


def _held(conn: Transaction, org_id: str, who: Caller, user_id: str) -> Member:
    """The member, while nobody else changes who is one."""
    orgs.lock(conn, org_id)
    there = store.find(conn, org_id, user_id)
    if there is None:
        raise NotFound(f"no member {user_id[:80]!r}", hint="runtools member list")
    if user_id != who.user_id and not access.within(access.ROLES[there.role], who.scopes):
        raise Forbidden("that member may do more than you")
    return there


def _keep_an_admin(conn: Transaction, leaving: Member) -> None:
    others = [
        one
        for one in store.all_of(conn, leaving.org_id)
        if one.role == "admin" and one.user_id != leaving.user_id
    ]
    if leaving.role == "admin" and not others:
        raise Conflict(
            "that is the organisation's last Admin",
            hint="make somebody else one first: runtools member role USER admin",
            details={"orgId": leaving.org_id},
        )
