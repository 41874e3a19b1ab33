"""Invitations: making them, and what they open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from runtools.errors import Conflict, Forbidden, NotFound
from runtools.platform.api.callers import makers
from runtools.platform.api.calls import Call
from runtools.platform.api.guard import check_scope
from runtools.platform.api.invitations import store
from runtools.platform.api.invitations.store import Invitation
from runtools.platform.api.members import store as members
from runtools.platform.api.members.store import Place
from runtools.platform.api.orgs import store as orgs
from runtools.platform.api.orgs.look import shown
from runtools.platform.api.platform import Platform
from runtools.platform.api.sessions import store as sessions
from runtools.platform.api.users import store as users
from runtools.platform.api.users.store import User
from runtools.platform.core import access
from runtools.platform.core.ids import new_id
from runtools.platform.kit import crypto, http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.people import InvitationCreate

PREFIX = "rt_invite_"
_HOURS = {"h": 1, "d": 24}
_MOST = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Offer:
    """What an invitation offers to who holds its code."""

    invitation: Invitation
    org_name: str


async def create(call: Call, wanted: InvitationCreate) -> tuple[Invitation, str | None]:
    """A new invitation and its code; a repeat of the act gives the invitation alone.

    Raises:
        Forbidden: it would let somebody do more than the caller may.
    """
    rights = access.of_person(wanted.role, operator=wanted.operator)
    if wanted.operator:
        check_scope(call.who, f"{access.PLATFORM}:write")
    if not access.within(rights, call.who.scopes):
        raise Forbidden("you can invite nobody who may do more than you")
    lasts = timedelta(hours=int(wanted.expires_in[:-1]) * _HOURS[wanted.expires_in[-1]])
    if lasts > _MOST:
        raise http.wrong_field("expiresIn", "an invitation is good for 30 days at most")
    invitation, code = fresh(call, call.org, wanted, lasts)
    made = await call.once(store.by_op, lambda: call.made(store.add, invitation))
    return made, code if made.id == invitation.id else None


def fresh(
    call: Call, org_id: str, wanted: InvitationCreate, lasts: timedelta
) -> tuple[Invitation, str]:
    """An invitation that is nowhere yet, and its code."""
    code, now = crypto.new_secret(PREFIX), call.platform.clock.now()
    made = Invitation(
        id=new_id("inv"),
        org_id=org_id,
        email=wanted.email,
        role=wanted.role,
        is_operator=wanted.operator,
        digest=crypto.digest(code),
        op=call.op,
        created_by=call.actor,
        created_at=now,
        expires_at=now + lasts,
    )
    return made, code


def link(platform: Platform, code: str) -> str:
    """The address to open; what comes after # no server and no log ever sees."""
    return f"{platform.public_url}/invite#{code}"


async def look(platform: Platform, code: str) -> Offer:
    """What the code offers.

    Raises:
        NotFound: nothing (any more).
    """
    now = platform.clock.now()
    return await platform.db.read(_look, crypto.digest(code), now)


async def accept(call: Call, code: str, user_id: str, status: int) -> Place:
    """Let a person who has an account into the org, and act in it by the session that calls.

    Who has come in by that code and is still there is told so again: the answer may have been lost.

    Args:
        status: how it is answered.

    Raises:
        NotFound: the code is unknown, used or over.
        Conflict: the person is a member already.
    """
    platform = call.platform
    now = platform.clock.now()
    done = await platform.db.write(_accept, call, crypto.digest(code), user_id, status, now)
    platform.door.forget_user(user_id)
    return done


async def join(call: Call, code: str, name: str, password: str, status: int) -> User:
    """Make an account for who was invited, and let it into the org.

    Args:
        status: how it is answered.

    Raises:
        NotFound: the code is unknown, used or over.
        Conflict: there is an account of that address.
    """
    platform = call.platform
    await look(platform, code)
    kept, now = await platform.passwords.hash(password), platform.clock.now()
    return await platform.db.write(_join, call, crypto.digest(code), name, kept, status, now)


async def revoke(call: Call, invitation_id: str) -> Invitation:
    """Nobody accepts it any more.

    Raises:
        NotFound: the org has none of that id.
    """
    now = call.platform.clock.now()
    done = await call.platform.db.write(store.revoke, call.org, invitation_id, now)
    if done is None:
        raise NotFound(f"no invitation {invitation_id[:80]!r}", hint="runtools invite list")
    return done


def admit(conn: Transaction, digest: str, user: User, now: datetime) -> Invitation:
    """Take the invitation of that digest for a user, in the transaction of the caller.

    Raises:
        NotFound: it is unknown, used, over, or of somebody who may not invite any more.
        Conflict: the person is a member already.
    """
    taken = store.take(conn, digest, now)
    if taken is None:
        raise _over()
    _enter(conn, taken, user, now)
    return taken


def _enter(conn: Transaction, taken: Invitation, user: User, now: datetime) -> None:
    orgs.lock(conn, taken.org_id)
    if not _still_given(conn, taken, now):
        raise _over()
    if members.find(conn, taken.org_id, user.id) is not None:
        raise Conflict("you are a member of that organisation already")
    members.add(conn, taken.org_id, user.id, taken.role, now)
    if taken.is_operator:
        users.set_operator(conn, user.id, operator=True)


def _entered(conn: Transaction, digest: str, user: User) -> Invitation:
    """The invitation by which that user has come in, and is in the org since."""
    taken = store.accepted(conn, digest)
    if taken is None:
        raise _over()
    orgs.lock(conn, taken.org_id)
    there = members.find(conn, taken.org_id, user.id)
    if there is None or there.joined_at != taken.accepted_at:
        raise _over()
    return taken


def _look(conn: Transaction, digest: str, now: datetime) -> Offer:
    found = store.open_one(conn, digest, now)
    if found is None or not _still_given(conn, found, now):
        raise _over()
    return Offer(found, orgs.name_of(conn, found.org_id))


def _accept(
    conn: Transaction, call: Call, digest: str, user_id: str, status: int, now: datetime
) -> Place:
    user = users.held(conn, user_id)
    if user is None:
        raise _over()
    taken = store.take(conn, digest, now)
    if taken is None:
        taken = _entered(conn, digest, user)
    else:
        _enter(conn, taken, user, now)
    sessions.switch(conn, call.who.id, taken.org_id)
    places = members.places(conn, user.id)
    (place,) = [place for place in places if place.org_id == taken.org_id]
    call.subject, call.line_org = taken.id, taken.org_id
    call.settle(conn, http.one(shown(place, place.org_id)), status)
    return place


def _join(
    conn: Transaction, call: Call, digest: str, name: str, kept: str, status: int, now: datetime
) -> User:
    found = store.open_one(conn, digest, now)
    if found is None:
        raise _over()
    user = User(new_id("usr"), found.email, name, kept, is_operator=False, created_at=now)
    if not users.add_once(conn, user):
        raise Conflict(
            "there is an account of that address",
            hint="sign in with it first, then open the link again",
        )
    joined(conn, call, admit(conn, digest, user, now), user, status)
    return user


def joined(conn: Transaction, call: Call, taken: Invitation, user: User, status: int) -> None:
    """Write down who has come in by an invitation, as somebody new, in the transaction that did it."""
    call.subject, call.line_org, call.entering = taken.id, taken.org_id, user.id
    call.tell(conn, status)


def _still_given(conn: Transaction, invitation: Invitation, now: datetime) -> bool:
    """Whether who made it could still make it: nobody comes back by a link kept for that."""
    held, is_there = makers.held(conn, invitation.created_by, invitation.org_id, now)
    given = access.of_person(invitation.role, operator=invitation.is_operator)
    if is_there:
        return access.covers(held, "org:write") and access.within(given, held)
    is_first = not members.all_of(conn, invitation.org_id)
    return is_first and access.covers(held, f"{access.PLATFORM}:write")


def _over() -> NotFound:
    return NotFound("the invitation is unknown, used, revoked or over", hint="ask for another one")
