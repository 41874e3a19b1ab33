"""Whose answer `runtools status` takes for that of its home."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from runtools.platform.boot import home, status
from runtools.platform.kit.config import Settings


class _Platform(BaseHTTPRequestHandler):
    """Answers as the platform `abcdef` would."""

    said = ("ready", "abcdef")

    def do_GET(self) -> None:
        health = {"status": self.said[0], "version": "1", "installId": self.said[1]}
        body = json.dumps({"data": health, "meta": {"requestId": "req_1"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Those of a home, at whose port a platform answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Platform)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield Settings(home=tmp_path, api_port=server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_platform_of_the_home_is_believed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (settings.home / "install-id").write_text("abcdef")
    assert await status.ask(settings) is not None
    assert await status.show(settings) == 0
    assert "ready" in capsys.readouterr().out


async def test_it_is_not_up_before_its_gateway_listens(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (settings.home / "install-id").write_text("abcdef")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        whole = replace(settings, ssh_port=port, gateway_port=port)
        assert await status.until_ready(whole, 20)
        assert await status.show(whole) == 0
        assert "warning" not in capsys.readouterr().out
        for half, what in (
            (replace(whole, ssh_port=1), "SSH"),
            (replace(whole, gateway_port=1), "dev URLs"),
        ):
            assert not await status.until_ready(half, 0.2)
            assert await status.show(half) == 0
            told = capsys.readouterr().out
            assert f"does not listen for {what} at 127.0.0.1:1;" in told
            assert told.count("warning") == 1


@pytest.mark.parametrize("mine", ["ghijkl", None])
async def test_another_one_at_its_port_is_not(
    settings: Settings, capsys: pytest.CaptureFixture[str], mine: str | None
) -> None:
    if mine is not None:
        (settings.home / "install-id").write_text(mine)
    assert await status.ask(settings) is None
    assert not await status.until_ready(settings, 0.2)
    assert await status.show(settings) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "another platform (abcdef)" in told.err


async def test_where_nothing_answers_it_is_said_what_starts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await status.show(Settings(home=tmp_path, api_port=1)) == 1
    assert "runtools up --detach starts it" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    with home.lock(tmp_path / "run/up.lock", "a platform"):
        assert await status.show(Settings(home=tmp_path, api_port=1)) == 1
    assert f"{tmp_path}/logs/runtools.log" in capsys.readouterr().err
