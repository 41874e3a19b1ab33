"""What is typed while an agent works."""

from __future__ import annotations

import os
import pty
import sys
import termios
from collections.abc import Iterator
from queue import Queue

import pytest

from runtools.cli.talk import Keys, Typed
from runtools.errors import RunEnded, Unavailable

PATIENCE = 60.0


@pytest.mark.parametrize(
    ("pieces", "keys"),
    [
        ([b"ab"], "ab"),
        (["ü→".encode()[:1], "ü→".encode()[1:]], "ü→"),
        ([b"a\x1b[Db"], "ab"),  # a cursor key
        ([b"a\x1b", b"[1;5", b"Cb"], "ab"),
        ([b"a\x1bOHb\x1b[3~c"], "abc"),
        ([b"a\x1bxb"], "ab"),
    ],
)
def test_keys(pieces: list[bytes], keys: str) -> None:
    found = Keys()
    assert "".join(key for piece in pieces for key in found.of(piece)) == keys


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of the terminal that stdin is."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as stdin, os.fdopen(ours, "rb", buffering=0):
        monkeypatch.setattr(sys, "stdin", stdin)
        yield ours


def test_a_line_is_said_at_return_and_the_rest_stays(terminal: int) -> None:
    typed, said = Typed(), Queue[str]()
    before = termios.tcgetattr(sys.stdin)
    with typed.heard(said.put):
        assert not termios.tcgetattr(sys.stdin)[3] & termios.ECHO
        os.write(terminal, b"\rno\x7f\x7f\x7ffirst\rwrong\x15second\rlater")
        assert [said.get(timeout=PATIENCE), said.get(timeout=PATIENCE)] == ["first", "second"]
        os.write(terminal, b"!\r")
        assert said.get(timeout=PATIENCE) == "later!"
    assert said.empty()
    assert termios.tcgetattr(sys.stdin) == before


def test_what_comes_too_late_is_the_next_message(terminal: int) -> None:
    tried = Queue[str]()

    def say(text: str) -> None:
        tried.put(text)
        raise RunEnded("it has ended")

    typed = Typed()
    with typed.heard(say):
        os.write(terminal, b"one\rtwo\r")
        tried.get(timeout=PATIENCE)
        tried.get(timeout=PATIENCE)
    assert typed.message() == "one\ntwo"


def test_what_could_not_be_said_is_not_lost(
    terminal: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = Queue[str]()

    def say(text: str) -> None:
        tried.put(text)
        raise Unavailable("nobody answers")

    typed = Typed()
    with typed.heard(say):
        os.write(terminal, b"one\r")
        tried.get(timeout=PATIENCE)
    assert typed.text == "one"
    assert "not said: nobody answers" in capsys.readouterr().err
