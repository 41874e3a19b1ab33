"""An address that opens is handed to the browser by a page that leads there once, and only this user."""

from __future__ import annotations

import http.client
import os
import sys
from urllib.parse import urlsplit

import pytest

from runtools.cli.sandbox import handing

LINK = "http://3000-sandbox-aaaaaaaaaaaa.sandboxes.localhost:7780/?runtools-link=rt_link_x"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is to say whose it is")


def ask(address: str, path: str | None = None) -> tuple[int, str | None]:
    url = urlsplit(address)
    asked = http.client.HTTPConnection(url.netloc, timeout=20)
    asked.request("GET", url.path if path is None else path)
    said = asked.getresponse()
    return said.status, said.headers["Location"]


def test_it_leads_there_once() -> None:
    with handing.leading_to(LINK) as (address, was_there):
        assert "rt_link_" not in address
        assert ask(address, "/") == (404, None)
        assert not was_there.is_set()
        assert ask(address) == (303, LINK)
        assert was_there.wait(20)
        assert ask(address) == (404, None)
    with pytest.raises(ConnectionRefusedError):
        ask(address)


def test_who_is_another_user_is_not_led_and_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    with handing.leading_to(LINK) as (address, was_there):
        monkeypatch.setattr(handing.os, "getuid", lambda: mine + 1)
        assert ask(address) == (404, None)
        assert not was_there.is_set()
        monkeypatch.setattr(handing.os, "getuid", lambda: mine)
        assert ask(address) == (303, LINK)


def test_a_browser_that_does_not_come_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(handing, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(handing.webbrowser, "open", lambda _: True)
    handing.open_unseen(LINK)
    assert "no browser has come" in capsys.readouterr().err
