"""Signing in by an identity. An account is linked to one by a person who is signed in, or made with it by
an invitation; that two have the same e-mail address links nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from runtools.errors import Conflict, Forbidden, NotFound, Unauthenticated
from runtools.platform.api.calls import Call
from runtools.platform.api.identities import store
from runtools.platform.api.identities.provider import Claims, Provider
from runtools.platform.api.identities.store import Flow, Identity
from runtools.platform.api.invitations import service as invitations
from runtools.platform.api.invitations import store as invitation_store
from runtools.platform.api.logins import store as logins
from runtools.platform.api.platform import Platform
from runtools.platform.api.sessions import store as sessions
from runtools.platform.api.users import store as users
from runtools.platform.api.users.store import User
from runtools.platform.core.ids import new_id
from runtools.platform.kit import crypto
from runtools.platform.kit.db import Transaction

LASTS = timedelta(minutes=10)
PATH = "/signin/oidc/callback"
_MAX_NAME = 100
_MAX_LABEL = 254


async def begin(
    platform: Platform, provider: Provider, to: str, user_id: str | None
) -> tuple[str, str]:
    """Where to send a browser, and the secret for its cookie."""
    state, secret = crypto.new_secret(""), crypto.new_secret("")
    address = await provider.address(_redirect(platform), state, secret)
    now = platform.clock.now()
    flow = Flow(crypto.digest(state), crypto.digest(secret), to, user_id, now + LASTS)
    await platform.db.write(store.begin, flow, now)
    return address, secret


async def take(platform: Platform, state: str) -> Flow:
    """The flow that somebody comes back from, which is none any more after this.

    Raises:
        Unauthenticated: none of that state is under way.
    """
    flow = await platform.db.write(store.take, crypto.digest(state))
    if flow is None:
        raise _over()
    return flow


async def finish(
    platform: Platform, provider: Provider, flow: Flow, code: str, secret: str | None
) -> Claims:
    """Whom the provider vouches for, to the browser that has begun the flow.

    Raises:
        Unauthenticated: another has, it is over, or the provider vouches for nobody.
    """
    if (
        secret is None
        or not crypto.same(flow.browser_digest, crypto.digest(secret))
        or flow.expires_at <= platform.clock.now()
    ):
        raise _over()
    return await provider.claims(_redirect(platform), code, secret)


def _over() -> Unauthenticated:
    return Unauthenticated("that sign-in is over, or was begun elsewhere", hint="begin again")


async def user_of(platform: Platform, claims: Claims) -> str:
    """The user whom the identity is linked to.

    Raises:
        Forbidden: nobody.
    """
    found = await platform.db.read(store.user_of, claims.issuer, claims.subject)
    if found is None:
        raise Forbidden(
            "no account is linked to that identity",
            hint="open your invitation's link first, or sign in with your password and link it",
        )
    return found


async def link(platform: Platform, claims: Claims, user_id: str) -> None:
    """Link the identity to the person who is signed in.

    Raises:
        Conflict: it is linked to another account.
    """
    identity = _identity(claims, user_id, platform.clock.now())
    if not await platform.db.write(_link, identity):
        raise Conflict("that identity is linked to another account")


async def all_of(call: Call) -> list[Identity]:
    """The identities that are linked to the person who calls."""
    return await call.platform.db.read(store.all_of, call.person)


async def unlink(call: Call, identity_id: str, look: Callable[[Identity], bytes]) -> Identity:
    """Unlink one; every other session of the person ends, for it may have been let in by it.

    Args:
        look: how it looks in the answer, which is kept with what it tells of.

    Raises:
        NotFound: the person has none of that id.
        Conflict: nothing else lets the person in.
    """
    done = await call.settled(look, _unlink, call.person, identity_id, call.who.id)
    call.platform.door.forget_user(call.person)
    return done


async def join(call: Call, claims: Claims, code: str, status: int) -> str:
    """The user of the identity; where there is none, one made by an invitation to its verified address.

    Args:
        status: how it is answered.

    Raises:
        NotFound: the invitation is unknown, used or over.
        Forbidden: it is for another address, or the provider has verified none.
        Conflict: there is an account of that address: it must be signed in to be linked.
    """
    now = call.platform.clock.now()
    return await call.platform.db.write(_join, call, claims, crypto.digest(code), status, now)


def _join(
    conn: Transaction, call: Call, claims: Claims, digest: str, status: int, now: datetime
) -> str:
    known = store.user_of(conn, claims.issuer, claims.subject)
    if known is not None:
        return known
    found = invitation_store.open_one(conn, digest, now)
    if found is not None and found.email != claims.email:
        raise Forbidden(
            "the invitation is for another e-mail address than the identity provider has verified",
            hint="make an account with a password instead, or ask for another invitation",
        )
    email = claims.email or ""
    name = (claims.name or "").strip()[:_MAX_NAME] or email.partition("@")[0]
    user = User(new_id("usr"), email, name, None, is_operator=False, created_at=now)
    if found is not None and not users.add_once(conn, user):
        raise Conflict(
            "there is an account of that address",
            hint="sign in with its password, then link the identity on the page of the account",
        )
    taken = invitations.admit(conn, digest, user, now)
    invitations.joined(conn, call, taken, user, status)
    store.link(conn, _identity(claims, user.id, now))
    return user.id


def _link(conn: Transaction, identity: Identity) -> bool:
    return users.held(conn, identity.user_id) is not None and store.link(conn, identity)


def _unlink(conn: Transaction, user_id: str, identity_id: str, session_id: str) -> Identity:
    user = users.locked(
        conn, user_id
    )  # of two at once, one sees that the other was the last but one
    done = store.unlink(conn, user_id, identity_id)
    if user is None or done is None:
        raise NotFound(
            f"no identity {identity_id[:80]!r} of yours", hint="runtools auth identities list"
        )
    if user.password is None and not store.all_of(conn, user_id):
        raise Conflict(
            "nothing else lets you in",
            hint="link another one first, or ask an Admin or the operator for a link that sets a password",
        )
    logins.end_approved(conn, user_id)
    sessions.end_others(conn, user_id, session_id)
    return done


def _identity(claims: Claims, user_id: str, now: datetime) -> Identity:
    label = claims.email or claims.name
    return Identity(
        id=new_id("idn"),
        issuer=claims.issuer,
        subject=claims.subject,
        user_id=user_id,
        label=None if label is None else "".join(filter(str.isprintable, label))[:_MAX_LABEL],
        created_at=now,
    )


def _redirect(platform: Platform) -> str:
    return f"{platform.public_url}{PATH}"
