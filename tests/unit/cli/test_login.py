"""What `runtools login` gives away, and `logout` where the platform is away."""

from __future__ import annotations

import sys
import webbrowser
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtools.cli import kept, login
from runtools.errors import Unavailable
from runtools.sdk import settings
from runtools.sdk.shapes.people import Login

AWAY = "http://127.0.0.1:9"


class Pending:
    """A login that is let in at once."""

    def __init__(self, address: str, *, retry_seconds: float) -> None:
        self.address = address

    def start(self, machine: str) -> Login:
        return Login(
            id="lgn_1",
            code="BCDF-GHJK",
            url=f"{self.address}/login",
            expires_at=datetime(2030, 1, 1, tzinfo=UTC),
            interval_seconds=0,
        )

    def finish(self, asked: Login) -> str:
        return "rt_session_x"

    def close(self) -> None:
        """Nothing is open."""


def test_the_browser_is_started_without_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(login, "sessions", SimpleNamespace(PendingLogin=Pending))
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert login._by_browser("https://rt.test", opens=True) == "rt_session_x"
    assert opened == ["https://rt.test/login"]


def test_who_cannot_reach_the_platform_is_signed_out_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(login, "_GOODBYE_SECONDS", 0.0)
    kept.keep(AWAY, "rt_session_x")
    with pytest.raises(Unavailable):
        login.logout(AWAY)
    assert settings.logins().secrets == {}
