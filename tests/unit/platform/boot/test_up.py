"""What `up` refuses before it starts anything, and what it tells its processes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runtools.errors import Conflict
from runtools.platform.boot import up
from runtools.platform.kit.config import Settings


@pytest.mark.parametrize("start", [up.foreground, up.detached])
async def test_a_port_that_somebody_has_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: object
) -> None:
    monkeypatch.setattr(up, "_need_root", lambda: None)
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match=f"cannot listen on 127.0.0.1:{port}") as told:
            await start(Settings(home=home, api_port=port), {})  # type: ignore[operator]
    assert "api_port" in str(told.value.hint)
    assert not home.exists()


def test_processes_are_told_settings_and_provider_keys_and_nothing_else(tmp_path: Path) -> None:
    given = {
        "RUNTOOLS_API_PORT": "7711",
        "RUNTOOLS_API_KEY": "rt_live_x",
        "OPENAI_API_KEY": "sk-x",
        "AWS_SECRET_ACCESS_KEY": "y",
    }
    told = up.child_env(Settings(home=tmp_path), given)
    assert (told["RUNTOOLS_API_PORT"], told["OPENAI_API_KEY"]) == ("7711", "sk-x")
    assert not {"RUNTOOLS_API_KEY", "AWS_SECRET_ACCESS_KEY"} & told.keys()


def test_host_and_worker_are_kept_from_keys_and_records() -> None:
    kept = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "RUNTOOLS_MASTER_KEY", "RUNTOOLS_DATABASE_URL"}
    kept |= {"RUNTOOLS_METRICS_TOKEN"}
    untold = {part.name: part.untold for part in up._parts(up.Person("root", 0, 0))}
    assert kept <= untold["host"]
    assert kept <= untold["worker"]
    assert not untold["api"]
