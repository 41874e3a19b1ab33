from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from runtools.platform.boot import supervisor as supervisor_module
from runtools.platform.boot.supervisor import Part, Supervisor
from runtools.platform.kit.process import PLAIN_ENV

WRITES_PID = (
    "import os,pathlib,time; pathlib.Path({file!r}).write_text(str(os.getpid())); time.sleep(60)"
)
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WRITES_PID


class Quick:
    """A clock whose pauses are noted and not waited for."""

    def __init__(self):
        self.pauses = []

    def monotonic(self):
        return 0.0

    async def sleep(self, seconds):
        self.pauses.append(seconds)
        await asyncio.sleep(0)


async def pid_in(file: Path, other_than: int = 0) -> int:
    async with asyncio.timeout(20):
        while True:
            text = file.read_text() if file.exists() else ""  # empty while it is written anew
            if text and int(text) != other_than:
                return int(text)
            await asyncio.sleep(0.01)


def part(file: Path, code: str = WRITES_PID, grace: float = 20.0) -> Part:
    return Part("part", [sys.executable, "-c", code.format(file=str(file))], grace)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_dead_part_is_started_again_later_and_later(tmp_path):
    clock, file = Quick(), tmp_path / "pid"
    supervisor = Supervisor([part(file)], PLAIN_ENV, clock)
    running = asyncio.create_task(supervisor.run())
    pid = 0
    for _ in range(3):
        pid = await pid_in(file, other_than=pid)
        os.kill(pid, signal.SIGKILL)
    pid = await pid_in(file, other_than=pid)
    supervisor.stop()
    await running
    assert clock.pauses == [0.2, 0.4, 0.8]
    assert not is_alive(pid)


async def test_a_part_that_will_not_end_is_killed(tmp_path):
    file = tmp_path / "pid"
    supervisor = Supervisor([part(file, DEAF, grace=0.1)], PLAIN_ENV, Quick())
    running = asyncio.create_task(supervisor.run())
    pid = await pid_in(file)
    supervisor.stop()
    await running
    assert not is_alive(pid)


async def test_one_that_is_not_patient_gives_a_part_up_that_dies_at_once(tmp_path):
    clock, file = Quick(), tmp_path / "pid"
    dying = Part("dying", [sys.executable, "-c", "raise SystemExit(3)"], 20.0)
    supervisor = Supervisor([part(file), dying], PLAIN_ENV, clock, patient=False)
    async with asyncio.timeout(60):
        await supervisor.run()
    assert supervisor.gave_up == "dying ended (exit code 3), 5 times one after the other"
    assert clock.pauses == [0.2, 0.4, 0.8, 1.6]
    assert not file.exists() or not is_alive(await pid_in(file))


async def test_deaths_long_after_each_other_are_not_counted_as_one_row(tmp_path):
    class Slow(Quick):
        """Whatever is started lives for a minute of it."""

        def __init__(self):
            super().__init__()
            self.now = 0.0

        def monotonic(self):
            self.now += 60.0
            return self.now

    dying = Part("dying", [sys.executable, "-c", "raise SystemExit(3)"], 20.0)
    clock = Slow()
    supervisor = Supervisor([dying], PLAIN_ENV, clock, patient=False)
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(60):
        while len(clock.pauses) < 6 and not running.done():
            await asyncio.sleep(0.01)
    supervisor.stop()
    await running
    assert supervisor.gave_up is None
    assert set(clock.pauses) == {0.2}


async def test_once_all_was_up_a_part_is_started_again_for_ever(tmp_path):
    dying = Part("dying", [sys.executable, "-c", "raise SystemExit(3)"], 20.0)
    clock = Quick()
    supervisor = Supervisor([dying], PLAIN_ENV, clock, patient=False)
    supervisor.is_ready()
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(60):
        while len(clock.pauses) < 7:
            await asyncio.sleep(0.01)
    supervisor.stop()
    await running
    assert supervisor.gave_up is None


async def test_a_part_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, file, failures = Quick(), tmp_path / "pid", [errno.EAGAIN, errno.ENOMEM]
    real = supervisor_module.start_child

    async def start(*command, **more):
        if failures:
            number = failures.pop()
            raise OSError(number, os.strerror(number))
        return await real(*command, **more)

    monkeypatch.setattr(supervisor_module, "start_child", start)
    supervisor = Supervisor([part(file)], PLAIN_ENV, clock)
    running = asyncio.create_task(supervisor.run())
    pid = await pid_in(file)
    supervisor.stop()
    await running
    assert clock.pauses == [0.2, 0.4]
    assert not is_alive(pid)
