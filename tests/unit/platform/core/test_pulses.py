"""What is a ping or a pong, and what only begins like one."""

from __future__ import annotations

import pytest

from runtools.platform.core.pulses import is_pulse

PING = b"\x89\x80mask"
PONG = b"\x8a\x03abc"


@pytest.mark.parametrize(
    "data", [PING, PONG, PING + PONG, b"\x89\x00", b"\x8a\xfdmask" + b"x" * 125]
)
def test_whole_pings_and_pongs(data: bytes) -> None:
    assert is_pulse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89",
        PING[:-1],
        PING + b"\x81",
        PING + b"\x81\x01a",
        b"\x81\x01a",  # text
        b"\x88\x00",  # a close is something
        b"\x09\x00",  # not whole: no ping is in parts
        b"\x89\x7e\x00\x7e" + b"x" * 126,  # too long for one
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_anything_else(data: bytes) -> None:
    assert not is_pulse(data)
