"""`runtools sandbox desktop` and `screenshot`."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtools import RunTools
from runtools.sdk.shapes.inside import ExecRequest, ExecResult
from runtools.testing.browser import browser

Cli = Any  # the fixture of conftest.py
PICTURE = b"\x89PNG\r\n\x1a\npicture"


def script(order: ExecRequest) -> ExecResult:
    said = PICTURE if order.command[0] == "scrot" else b"800 600\nX=1\nY=2\nSCREEN=0\n"
    return ExecResult(
        process_id=str(order.process_id),
        stdout=base64.b64encode(said).decode(),
        stderr="",
        encoding="base64",
        exit_code=0,
        signal=None,
        duration_ms=1.0,
        timed_out=False,
        truncated=False,
    )


@pytest.fixture
def desk(platform: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a sandbox with a desktop."""
    built = asyncio.run_coroutine_threadsafe(platform.world.build("desktop-debian"), platform.loop)
    built.result(60)
    monkeypatch.setattr(platform.world.host, "script", script)
    with RunTools(api_key=platform.key, url=platform.url) as rt:
        return rt.sandboxes.create("desktop-debian").id


def test_pictures_and_addresses(cli: Cli, desk: str, tmp_path: Path) -> None:
    done = cli.ok("sandbox", "screenshot", desk, "-o", str(tmp_path / "desk.png"))
    assert (tmp_path / "desk.png").read_bytes() == PICTURE
    assert done.out == b""
    assert cli.ok("sandbox", "screenshot", desk).out == PICTURE
    address = cli.ok("sandbox", "desktop", desk).text.strip()
    assert address.startswith(f"http://6901-{desk}.sandboxes.localhost:")
    link = cli.ok("sandbox", "desktop", desk, "--ttl", "30m").text.strip()
    assert link.startswith(f"{address}/?runtools-link=")
    nowhere = cli("sandbox", "screenshot", desk, "-o", str(tmp_path / "no/where.png"))
    assert nowhere.code == 1
    assert "--output" in nowhere.err


def test_it_is_opened_in_the_browser_and_no_program_list_shows_its_link(
    cli: Cli, desk: str, tmp_path: Path
) -> None:
    person = browser(tmp_path)
    opening = replace(cli, env=cli.env | person.env)
    address = opening.ok("sandbox", "desktop", desk, "--open").text.strip()
    assert person.started_with.startswith("http://127.0.0.1:")
    assert "rt_link_" not in person.started_with
    assert person.led_to.startswith(f"{address}/?runtools-link=rt_link_")
    public = opening.ok("sandbox", "url", desk, "-p", "3000", "--public", "--open").text
    assert person.started_with == public.strip()  # there is nothing to hide
    nowhere = replace(opening, env=opening.env | {"BROWSER": "false %s"})
    away = nowhere.ok("sandbox", "url", desk, "-p", "3000", "--open")
    assert "open the address yourself" in away.err


def test_a_sandbox_without_one(cli: Cli, platform: Any) -> None:
    with RunTools(api_key=platform.key, url=platform.url) as rt:
        plain = rt.sandboxes.create().id
    for command in ("desktop", "screenshot"):
        done = cli("sandbox", command, plain)
        assert done.code == 1
        assert "has no desktop" in done.err
        assert "desktop-debian" in done.err
