"""What a command in a sandbox is given of a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from runtools.cli.sandbox import inside
from runtools.errors import TooLarge
from runtools.sdk import wire


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a pipe; the end into which to write, which stays open."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield writing
    os.close(writing)


def test_what_is_too_much_is_refused_before_it_has_ended(
    piped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_STDIN_BYTES", 10)
    os.write(piped, b"eleven byte")  # and more could come for ever
    given = inside._piped()
    assert given == b"eleven byte"
    with pytest.raises(TooLarge, match="more than the 10 bytes"):
        wire.stdin(given)
