"""Taps are attached to, and never made by the way."""

from __future__ import annotations

import os
import socket

import pytest

from runtools.platform.host.net.taps import open_tap


def test_a_tap_that_is_not_there_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("fcntl.ioctl", lambda *given: asked.append(given))
    monkeypatch.setattr(os, "open", lambda *_: os.dup(0))
    with pytest.raises(OSError, match="no such tap: 'no-such-tap'"):
        open_tap("no-such-tap")
    assert asked == []
    assert "no-such-tap" not in {name for _, name in socket.if_nameindex()}
