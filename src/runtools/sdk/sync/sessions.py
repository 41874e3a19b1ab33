# Generated from sdk/sessions.py by scripts/generate_sync.py: edit that, then run it.
"""Where a person is signed in, and how a command line comes to be."""

from __future__ import annotations

import hashlib
import secrets

from runtools.sdk import wire
from runtools.sdk.settings import Settings
from runtools.sdk.shapes.people import Login, LoginResult, Session, SessionsEnded
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
        """The session's secret, once; None while nobody has answered.

        Raises:
            Unauthenticated: it was refused, or its time is over.
        """
        body = {"id": login.id, "verifier": self._verifier}
        answer = self._transport.call("POST", "/logins/finish", body=body)
        return wire.shape(LoginResult, answer.data).token
