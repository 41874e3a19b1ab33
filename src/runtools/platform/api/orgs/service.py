"""Orgs: making one, renaming it, and in which one a person acts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from runtools.errors import NotFound
from runtools.platform.api.calls import Call
from runtools.platform.api.invitations import service as invitations
from runtools.platform.api.invitations import store as invitation_store
from runtools.platform.api.invitations.store import Invitation
from runtools.platform.api.members import store as members
from runtools.platform.api.members.store import Place
from runtools.platform.api.orgs import store
from runtools.platform.api.orgs.look import shown
from runtools.platform.api.projects import store as projects
from runtools.platform.api.projects.store import Project
from runtools.platform.api.sessions import store as sessions
from runtools.platform.core.ids import new_id
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.people import InvitationCreate, OrgCreate

_FIRST_ADMIN_LASTS = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Made:
    """A new org, and the invitation of its first Admin with its code, where one was asked for."""

    place: Place
    invitation: Invitation | None = None
    code: str | None = None


async def all_of(call: Call) -> list[Place]:
    """The orgs that the caller is in: a person's, or the one of a key."""
    db, who = call.platform.db, call.who
    if who.user_id is not None:
        return await db.read(members.places, who.user_id)
    return [await db.read(members.place, call.org)]


async def create(call: Call, wanted: OrgCreate) -> Made:
    """A new org with its default project and whoever is its first Admin.

    Raises:
        InvalidRequest: a key asks, which can be no Admin, and names nobody.
    """
    if wanted.admin_email is None and call.who.user_id is None:
        raise http.wrong_field("adminEmail", "an API key cannot be an Admin: say who is to be")
    org_id, now = new_id("org"), call.platform.clock.now()
    if wanted.admin_email is None:
        return await call.platform.db.write(_create, call, org_id, wanted.name, now)
    asked = InvitationCreate(email=wanted.admin_email, role="admin")
    invitation, code = invitations.fresh(call, org_id, asked, _FIRST_ADMIN_LASTS)
    made = await call.platform.db.write(_offer, call, wanted.name, invitation, now)
    return Made(made.place, made.invitation, code if made.place.org_id == org_id else None)


async def rename(call: Call, name: str) -> Place:
    """Another name for the caller's org."""

    def act(conn: Transaction) -> Place:
        store.rename(conn, call.org, name)
        return _current(conn, call)

    return await call.settled(lambda place: http.one(shown(place, call.org)), act)


async def current(call: Call) -> Place:
    """The caller's org."""
    return await call.platform.db.read(_current, call)


async def switch(call: Call, org_id: str) -> Place:
    """Act in another of the person's orgs from now on.

    Raises:
        NotFound: the person is in no org of that id.
    """
    found = await call.settled(
        lambda place: http.one(shown(place, org_id)), _switch, call.who.id, call.person, org_id
    )
    call.platform.door.forget(call.who.digest)
    return found


def _current(conn: Transaction, call: Call) -> Place:
    user_id, org_id = call.who.user_id, call.org
    if user_id is None:
        return members.place(conn, org_id)
    found = [place for place in members.places(conn, user_id) if place.org_id == org_id]
    return found[0] if found else members.place(conn, org_id)


def _create(conn: Transaction, call: Call, org_id: str, name: str, now: datetime) -> Made:
    made = _org(conn, call, org_id, name, now)
    if made == org_id:
        members.add(conn, org_id, call.person, "admin", now)
    (place,) = [place for place in members.places(conn, call.person) if place.org_id == made]
    return Made(place)


def _offer(conn: Transaction, call: Call, name: str, invitation: Invitation, now: datetime) -> Made:
    made = _org(conn, call, invitation.org_id, name, now)
    if made == invitation.org_id:
        invitation_store.add(conn, invitation)
    kept = invitation_store.by_op(conn, made, invitation.op)
    return Made(members.place(conn, made), kept)


def _org(conn: Transaction, call: Call, org_id: str, name: str, now: datetime) -> str:
    made = call.subject = store.add_once(conn, org_id, name, call.op, now)
    if made == org_id:
        projects.add(
            conn, Project(new_id("prj"), org_id, "default", is_default=True, created_at=now)
        )
    return made


def _switch(conn: Transaction, session_id: str, user_id: str, org_id: str) -> Place:
    mine = [place for place in members.places(conn, user_id) if place.org_id == org_id]
    if not mine:
        raise NotFound(
            f"you are in no organisation {org_id[:80]!r}", hint="`runtools org list` shows yours"
        )
    sessions.switch(conn, session_id, org_id)
    return mine[0]
