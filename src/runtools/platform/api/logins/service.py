"""Logins of command lines: one asks with the digest of a secret of its own, a person who is signed in types
the code that it shows, and only who knows the secret fetches the session.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

from runtools.errors import NotFound, Unauthenticated
from runtools.platform.api.calls import Call
from runtools.platform.api.logins import store
from runtools.platform.api.logins.store import Login
from runtools.platform.api.sessions.service import opened
from runtools.platform.api.sessions.store import PREFIX, Session
from runtools.platform.api.signin import service as signin
from runtools.platform.api.users import store as users
from runtools.platform.core.ids import new_id
from runtools.platform.kit import rates
from runtools.platform.kit.crypto import digest, keyed_digest, new_secret
from runtools.platform.kit.db import Transaction

LASTS = timedelta(minutes=10)
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels: no words; nothing that looks like a digit
_LENGTH = 8
FETCHED = 200


async def start(call: Call, challenge: str, machine: str) -> tuple[Login, str]:
    """A login that waits, and the code that a person types.

    Raises:
        RateLimited: too many were begun from there.
    """
    await signin.slow_down(call.platform, {digest(f"login {rates.source(call.source)}"): "login"})
    code = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    now = call.platform.clock.now()
    login = Login(
        id=new_id("lgn"),
        challenge=challenge,
        code_digest=digest(code),
        machine=machine,
        source=call.source,
        created_at=now,
        expires_at=now + LASTS,
    )
    await call.platform.db.write(store.add, login)
    return login, f"{code[:4]}-{code[4:]}"


async def look(call: Call, code: str) -> Login:
    """The login of a code that a person has typed.

    Raises:
        NotFound: none waits under it.
        RateLimited: the person has typed too many that were none.
    """
    guess = digest(f"login-code {call.person}")
    await signin.slow_down(call.platform, {guess: "account-at"})
    now = call.platform.clock.now()
    found = await call.platform.db.read(store.waiting, _digest(code), now)
    if found is None:
        raise _none()
    await signin.forgive(call.platform, own=[guess])
    return found


async def approve(call: Call, code: str) -> Login:
    """Let it in as the person who is signed in, in the org of the moment."""
    await look(call, code)
    now = call.platform.clock.now()
    done = await call.platform.db.write(
        store.approve, _digest(code), call.person, call.who.org_id, now
    )
    if done is None:
        raise _none()
    return done


async def refuse(call: Call, code: str) -> None:
    """Never let it in."""
    await look(call, code)
    await call.platform.db.write(store.refuse, _digest(code))


async def finish(call: Call, login_id: str, verifier: str) -> str | None:
    """The session's secret once it is approved; None while it waits.

    An answer may be lost on its way: who knows the verifier is told again for as long as the login is kept
    and the session lives. The secret is made of the verifier and a salt of ours, so it is kept nowhere.

    Raises:
        Unauthenticated: no login of that id waits for that secret (any more).
    """
    found = await _found(call, login_id, verifier)
    if found.user_id is None:
        call.did_nothing = True
        return None
    if found.salt is None:
        found = await _fetched(call, found, verifier)
    else:
        call.did_nothing = True
    try:
        call.caller = await call.platform.door.admit(_secret(found, verifier))
    except Unauthenticated:
        raise _over() from None  # the session has been ended since
    return _secret(found, verifier)


async def _found(call: Call, login_id: str, verifier: str) -> Login:
    now = call.platform.clock.now()
    found = await call.platform.db.read(store.find, login_id, digest(verifier), now)
    if found is None:
        raise _over()
    return found


async def _fetched(call: Call, login: Login, verifier: str) -> Login:
    """The login once its session is open: by this call, or by one of the same secret at the same time."""
    sessions = call.platform.sessions
    await signin.forgive(call.platform, shared=[digest(f"login {rates.source(login.source)}")])
    fresh = replace(login, salt=new_secret(""))
    user_id, secret = str(login.user_id), _secret(fresh, verifier)
    session = sessions.fresh(user_id, "cli", login.machine, call.source, secret, login.org_id)
    if await call.platform.db.write(_fetch, call, login.id, str(fresh.salt), session):
        return replace(fresh, session_id=session.id)
    found = await _found(call, login.id, verifier)
    if found.salt is None:
        raise _over()  # the account is closed
    call.did_nothing = True
    return found


def _secret(login: Login, verifier: str) -> str:
    return PREFIX + keyed_digest(verifier, str(login.salt).encode())


def _fetch(conn: Transaction, call: Call, login_id: str, salt: str, session: Session) -> bool:
    """Open the session that a login is for; False: it is fetched or was ended, or the account is closed."""
    # The user first, as who changes the password does it.
    if users.held(conn, session.user_id, unchanged=True) is None:
        return False
    if not store.fetch(conn, login_id, salt, session.id):
        return False
    org_id = opened(conn, session).org_id
    call.subject, call.line_org, call.entering = session.id, org_id, session.user_id
    call.tell(conn, FETCHED)
    return True


def _over() -> Unauthenticated:
    return Unauthenticated(
        "that login is unknown, refused or over", hint="begin again: runtools login"
    )


def _digest(code: str) -> str:
    return digest("".join(char for char in code.upper() if char.isalpha()))


def _none() -> NotFound:
    return NotFound(
        "no command line waits under that code", hint="it is good for ten minutes, and once"
    )
