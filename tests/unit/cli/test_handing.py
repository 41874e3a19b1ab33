"""An address that opens is handed to the browser by a page that leads there, and only this user."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlsplit

import pytest

from runtools.cli import output
from runtools.cli.sandbox import handing
from runtools.cli.sandbox.handing import Whose

LINK = "http://3000-sandbox-aaaaaaaaaaaa.sandboxes.localhost:7780/?runtools-link=rt_link_x"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is to say whose it is")


def ask(address: str, path: str | None = None) -> tuple[int, str | None, bytes]:
    url = urlsplit(address)
    asked = http.client.HTTPConnection(url.netloc, timeout=20)
    asked.request("GET", url.path if path is None else path)
    said = asked.getresponse()
    return said.status, said.headers["Location"], said.read()


def test_it_leads_there_and_is_gone() -> None:
    with handing.leading_to(LINK) as (address, came):
        assert "rt_link_" not in address
        status, _, said = ask(address, "/")
        assert (status, came.empty()) == (404, True)
        assert b"Open the address" in said
        for _ in range(2):  # who looks first is not always who shows it
            assert ask(address) == (303, LINK, b"")
            assert came.get(timeout=20) == "this user's"
    with pytest.raises(ConnectionRefusedError):
        ask(address)


def test_who_is_another_user_is_not_led(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    with handing.leading_to(LINK) as (address, came):
        monkeypatch.setattr(handing.os, "getuid", lambda: mine + 1)
        status, where, said = ask(address)
        assert (status, where) == (404, None)
        assert b"only programs of the user" in said
        assert b"it is another user's" in said
        assert LINK.encode() not in said
        assert came.get(timeout=20) == "another user's"
        monkeypatch.setattr(handing.os, "getuid", lambda: mine)
        assert ask(address)[:2] == (303, LINK)


def test_one_that_speaks_the_other_protocol_is_found_too() -> None:
    with handing.leading_to(LINK) as (address, _):
        url = urlsplit(address)
        with socket.socket(socket.AF_INET6) as asked:
            asked.settimeout(20)
            asked.connect(("::ffff:127.0.0.1", url.port))
            asked.sendall(f"GET {url.path} HTTP/1.0\r\n\r\n".encode())
            assert b" 303 " in asked.recv(100)


def test_who_breaks_off_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    with handing.leading_to(LINK) as (address, came):
        for _ in range(5):
            asked = socket.create_connection(("127.0.0.1", urlsplit(address).port), 20)
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            asked.sendall(f"GET {urlsplit(address).path}".encode())
            asked.close()
        assert ask(address)[0] == 303
        assert came.get(timeout=20) == "this user's"
        for one in threading.enumerate():
            if "process_request_thread" in one.name:
                one.join(20)
    assert capfd.readouterr().err == ""


def test_who_is_not_listed_is_not_led_and_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one on another network of the machine."""
    nothing = tmp_path / "tcp"
    nothing.write_text("  sl  local_address rem_address\n")
    monkeypatch.setattr(handing, "_CONNECTIONS", nothing)
    monkeypatch.setattr(handing, "_CONNECTIONS_6", nothing)
    with handing.leading_to(LINK) as (address, came):
        status, where, said = ask(address)
        assert (status, where) == (404, None)
        assert b"the kernel does not say whose it is" in said
        assert b"another user" not in said
        assert came.get(timeout=20) == "unknown"


def test_whose_one_is_that_has_gone_is_unknown() -> None:
    with socket.socket() as never:
        assert handing.whose_is(never) == "unknown"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), 20) as asked,
    ):
        came, _ = server.accept()
        with came:
            assert handing.whose_is(came) == "this user's"
            asked.close()  # the kernel lists it for a while
            assert handing.whose_is(came) == "unknown"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said to be waited for."""
    said: list[str] = []

    @contextmanager
    def working(text: str) -> Iterator[None]:
        said.append(text)
        yield

    monkeypatch.setattr(output, "working", working)
    return said


def test_a_browser_that_does_not_come_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], waits: list[str]
) -> None:
    monkeypatch.setattr(handing, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(handing.webbrowser, "open", lambda _: True)
    handing.open_unseen(LINK)
    assert "no browser has come" in capsys.readouterr().err
    assert waits == ["waiting for the browser"]


def test_so_is_one_that_came_and_was_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, waits: list[str]
) -> None:
    told, refused = SimpleQueue[str](), SimpleQueue[str]()
    whose: Whose = "another user's"

    def start(address: str) -> bool:
        told.put(address)
        return True

    monkeypatch.setattr(handing.webbrowser, "open", start)
    monkeypatch.setattr(handing, "whose_is", lambda _: whose)
    monkeypatch.setattr(handing, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(output, "note", refused.put)
    waiting = threading.Thread(target=handing.open_unseen, args=(LINK,))
    waiting.start()
    address = told.get(timeout=20)
    try:
        for _ in range(2):  # ... and once
            assert ask(address)[0] == 404
        said = refused.get(timeout=20)
        assert "another user's" in said
        assert "does not say" not in said
        whose = "unknown"
        assert ask(address)[0] == 404
        said = refused.get(timeout=20)
        assert "the kernel does not say whose it is" in said
        assert "another user" not in said
        assert waiting.is_alive()
    finally:
        whose = "this user's"
        assert ask(address)[0] == 303
        waiting.join(20)
    assert refused.empty()
    assert waits
