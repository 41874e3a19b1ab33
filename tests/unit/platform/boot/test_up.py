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


@pytest.mark.parametrize("left", [True, False])
async def test_down_pauses_what_the_host_of_a_running_platform_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bool
) -> None:
    """As when the host part was dead, or coming up, at the moment of the end."""
    settings, done = Settings(home=tmp_path), []

    async def end(pid: int) -> None:
        done.append(pid)

    async def part(argv: list[str], *_: object) -> bytes:
        done.append(argv[-2:])
        return b""

    monkeypatch.setattr(up, "_need_root", lambda: None)
    monkeypatch.setattr(up.home, "holder", lambda _: 4711)
    monkeypatch.setattr(up, "_end", end)
    monkeypatch.setattr(up, "_part", part)
    monkeypatch.setattr(up.uids, "kept", lambda _: 900_000)
    monkeypatch.setattr(up, "users_of", lambda ranges: {ranges[0][7]} if left else set())
    assert await up.down(settings, {}) == 0
    assert done == [4711, ["host", "--pause-all"]] if left else [4711]


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
