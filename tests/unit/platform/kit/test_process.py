"""Programs that say more than is read, and such as leave something behind that holds their pipes open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtools.platform.kit.process import CommandFailed, run, stream

# Its pipes are open in a session of its own, which no signal to the program's group reaches.
LEAVES = "setsid sleep 600 & echo $!; "


@pytest.fixture
def left() -> Iterator[Callable[[str], None]]:
    """Hears what a program says, and ends what it said that it leaves behind."""
    said: list[int] = []

    def hear(line: str) -> None:
        if line.isdigit():
            said.append(int(line))

    yield hear
    for pid in said:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def ends(asked: Coroutine[Any, Any, Any], heard: asyncio.Event | None = None) -> Any:
    """What comes of it, which must not take long; it is cancelled when something was heard."""
    task = asyncio.create_task(asked)
    if heard is not None:
        async with asyncio.timeout(60):
            await heard.wait()
        task.cancel()
    done, _ = await asyncio.wait({task}, timeout=30)
    assert done, "it is waited for still"
    return await task


class TestStream:
    async def test_one_that_floods_is_ended_by_a_cancel(self) -> None:
        heard, lines = asyncio.Event(), 0

        def hear(_: str) -> None:
            nonlocal lines
            lines += 1
            if lines == 200_000:  # more than the pipe holds, and whoever reads it
                heard.set()

        with pytest.raises(asyncio.CancelledError):
            await ends(stream(["yes", ""], hear), heard)

    async def test_nor_does_one_that_left_its_group_hold_up_a_cancel(
        self, left: Callable[[str], None]
    ) -> None:
        heard = asyncio.Event()

        def hear(line: str) -> None:
            left(line)
            if line == "flood":
                heard.set()

        with pytest.raises(asyncio.CancelledError):
            await ends(stream(["sh", "-c", LEAVES + "exec yes flood"], hear), heard)

    async def test_nor_its_end_and_all_that_it_said_itself_is_heard(
        self, left: Callable[[str], None]
    ) -> None:
        lines: list[str] = []

        def hear(line: str) -> None:
            left(line)
            lines.append(line)

        script = LEAVES + "seq 30000 | tr -d '0-9'; printf unended"
        assert await ends(stream(["sh", "-c", script], hear)) == 0
        assert (lines[1:-1], lines[-1]) == ([""] * 30_000, "unended")

    async def test_others_have_their_turn_between_the_pieces_of_a_flood(self) -> None:
        turns = seen = at_once = most = lines = 0

        def hear(_: str) -> None:
            nonlocal seen, at_once, most, lines
            at_once = at_once + 1 if turns == seen else 1
            seen, most, lines = turns, max(most, at_once), lines + 1

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await stream(["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' '\\n'"], hear)
        task.cancel()
        assert lines == 100_000
        assert most <= 1024

    async def test_a_long_line_is_cut_and_a_failure_quotes_the_end(self) -> None:
        lines: list[str] = []
        script = "head -c 100000 /dev/zero | tr '\\0' 'x'; echo; echo why; exec >&- 2>&-; sleep 0.1; exit 3"
        with pytest.raises(CommandFailed, match=r"ended with 3: x+\nwhy") as caught:
            await stream(["sh", "-c", script], lines.append)
        assert caught.value.code == 3
        assert lines == ["x" * 4096, "why"]


class TestRun:
    async def test_one_that_floods_is_ended_when_its_time_is_over(self) -> None:
        with pytest.raises(TimeoutError):
            await ends(run(["sh", "-c", "echo >&2; exec yes"], timeout=0.3))

    async def test_nor_does_one_that_left_it_hold_that_up(
        self, left: Callable[[str], None], tmp_path: Path
    ) -> None:
        script = f"setsid sleep 600 & echo $! >{tmp_path}/pid; exec sleep 600"
        try:
            with pytest.raises(TimeoutError):
                await ends(run(["sh", "-c", script], timeout=1))
        finally:
            left((tmp_path / "pid").read_text().strip())

    async def test_what_is_given_comes_and_what_is_said_is_told(self) -> None:
        done = await run(["sh", "-c", "cat; echo no >&2; exit 4"], stdin=b"yes", check=False)
        assert (done.code, done.stdout, done.stderr) == (4, b"yes", b"no\n")
