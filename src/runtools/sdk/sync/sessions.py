# Generated from sdk/sessions.py by scripts/generate_sync.py: edit that, then run it.
"""Where a person is signed in, and how a command line comes to be."""

from __future__ import annotations

import hashlib
import secrets

from runtools.sdk import wire
from runtools.sdk.settings import Settings
from runtools.sdk.shapes.people import (
    Account,
    Identity,
    Login,
    LoginResult,
    Session,
    SessionsEnded,
)
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class Sessions:
    """The sessions of the person who is signed in: ``rt.sessions``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Session]:
        """Where the person is signed in, the latest used first."""
        pages = self._transport.pages("/sessions", [], _PAGE)
        found = [wire.shape(Session, item) for item in pages]
        return sorted(found, key=lambda session: session.seen_at, reverse=True)

    def end(self, session_id: str = "current") -> None:
        """Sign out there; by default here."""
        self._transport.call("DELETE", f"/sessions/{wire.segment(session_id)}")

    def end_others(self) -> int:
        """Sign out everywhere else; returns how many sessions that were."""
        answer = self._transport.call("DELETE", "/sessions")
        return wire.shape(SessionsEnded, answer.data).ended

    def change_password(self, current: str, new: str) -> int:
        """Another password. All other sessions end; returns how many."""
        body = {"current": current, "new": new}
        answer = self._transport.call("POST", "/me/password", body=body)
        return wire.shape(SessionsEnded, answer.data).ended

    def close_account(self, password: str | None = None) -> Account:
        """Close the account of the person who is signed in. What the person made stays with the org.

        Raises:
            Forbidden: that is not the present password, which an account that has one asks for.
            Conflict: it is the last Admin of an org, or the last operator.
        """
        answer = self._transport.call("POST", "/me/close", body={"password": password})
        return wire.shape(Account, answer.data)


class Identities:
    """By which identities of a provider the person who is signed in is let in: ``rt.identities``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Identity]:
        """The identities of an identity provider that are linked to the account."""
        answer = self._transport.call("GET", "/me/identities")
        return wire.shapes(Identity, answer.data)

    def unlink(self, identity_id: str) -> Identity:
        """Unlink one of them; all other sessions end.

        Raises:
            Conflict: nothing else lets the person in.
        """
        path = f"/me/identities/{wire.segment(identity_id)}"
        return wire.shape(Identity, (self._transport.call("DELETE", path)).data)


class PendingLogin:
    """A program that asks a person to let it in, at a platform of which it has no key yet.

    What it sends first is the digest of a secret that it made; who learns the code or the id of the login
    cannot fetch the session without that secret.
    """

    def __init__(self, url: str, *, retry_seconds: float) -> None:
        self._transport = Transport(Settings(url, ""), retry_seconds=retry_seconds)
        self._verifier = secrets.token_urlsafe(32)

    def close(self) -> None:
        """Close the connections to the platform."""
        self._transport.close()

    def start(self, machine: str) -> Login:
        """Ask. A person who is signed in types the ``code`` at the ``url``."""
        challenge = hashlib.sha256(self._verifier.encode()).hexdigest()
        body = {"challenge": challenge, "machine": machine}
        return wire.shape(Login, (self._transport.call("POST", "/logins", body=body)).data)

    def finish(self, login: Login) -> str | None:
        """The session's secret; None while nobody has answered. May be asked again within the login's time.

        Raises:
            Unauthenticated: it was refused, or its time is over.
        """
        body = {"id": login.id, "verifier": self._verifier}
        answer = self._transport.call("POST", "/logins/finish", body=body)
        return wire.shape(LoginResult, answer.data).token
