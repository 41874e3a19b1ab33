"""The log of a detached platform does not grow without end."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from runtools.platform.boot import logfile
from runtools.testing.clock import ManualClock


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MOST_BYTES", 10)


@pytest.mark.usefixtures("small")
def test_it_is_begun_anew_for_those_who_have_it_open_and_its_end_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "runtools.log"
    with file.open("ab", buffering=0) as writer:
        writer.write(b"ten bytes.")
        logfile.turn(file)
        assert file.read_bytes() == b"ten bytes."
        writer.write(b"more")
        logfile.turn(file)
        writer.write(b"after it")
    assert file.read_bytes() == b"after it"
    older = tmp_path / "runtools.log.1"
    assert older.read_bytes() == b"ten bytes.more"
    assert older.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("small")
async def test_one_that_is_ours_is_looked_after_and_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, clock = tmp_path / "runtools.log", ManualClock()
    file.write_bytes(b"something of somebody else")
    await logfile.keep_bounded(file, clock)
    assert file.stat().st_size > 0
    with file.open("ab", buffering=0) as writer:
        monkeypatch.setattr(sys, "stderr", writer)
        keeping = asyncio.ensure_future(logfile.keep_bounded(file, clock))
        async with asyncio.timeout(30):
            while os.fstat(writer.fileno()).st_size:
                await asyncio.sleep(0.01)
        writer.write(b"and again too much")
        async with asyncio.timeout(30):
            while os.fstat(writer.fileno()).st_size:
                clock.advance(60)
                await asyncio.sleep(0.01)
        keeping.cancel()
    assert (tmp_path / "runtools.log.1").read_bytes() == b"and again too much"


def test_what_an_earlier_start_said_is_told_of_none_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "runtools.log"
    assert logfile.size_of(file) == 0
    file.write_text("of an earlier start\n")
    before = logfile.size_of(file)
    with file.open("a") as more:
        more.write("one\ntwo\nthree\n")
    assert logfile.said_since(file, before, 2) == "two\nthree"
    assert logfile.said_since(file, before, 9) == "one\ntwo\nthree"
    file.write_text("new\n")  # it had outgrown its size meanwhile
    assert logfile.said_since(file, before, 9) == "new"
