"""What commands share."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import runtools
from runtools.cli.session import connected
from runtools.errors import Unauthenticated, Unavailable

URL = "http://127.0.0.1:7711"


class Other:
    """A platform that does not know the key."""

    url = URL

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def health(self) -> Any:
        """Which one it is."""
        return SimpleNamespace(install_id="other1")


def kept(monkeypatch: pytest.MonkeyPatch, folder: Path, **more: str) -> None:
    monkeypatch.setenv("RUNTOOLS_HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    for name in ("RUNTOOLS_API_KEY", "RUNTOOLS_API_URL"):
        monkeypatch.delenv(name, raising=False)
    body = {"apiUrl": URL, "apiKey": "rt_live_kept", **more}
    (folder / "client.json").write_text(json.dumps(body))


class TestAnotherPlatform:
    def test_at_the_same_address_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        kept(monkeypatch, tmp_path, installId="first1")
        monkeypatch.setattr(runtools, "RunTools", Other)
        named = r"is other1, and the key in .*belongs to first1"
        with pytest.raises(Unauthenticated, match=named), connected():
            raise Unauthenticated("no such key")

    @pytest.mark.parametrize("more", [{"installId": "other1"}, {}])
    def test_where_it_is_the_same_or_nobody_knows_nothing_is_made_up(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: dict[str, str]
    ) -> None:
        kept(monkeypatch, tmp_path, **more)
        monkeypatch.setattr(runtools, "RunTools", Other)
        with pytest.raises(Unauthenticated, match=r"^no such key"), connected():
            raise Unauthenticated("no such key")

    def test_one_that_does_not_say_who_it_is_hides_nothing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def silent(_: Other) -> None:
            raise Unavailable("it is away")

        kept(monkeypatch, tmp_path, installId="first1")
        monkeypatch.setattr(runtools, "RunTools", Other)
        monkeypatch.setattr(Other, "health", silent)
        with pytest.raises(Unauthenticated, match=r"^no such key"), connected():
            raise Unauthenticated("no such key")
