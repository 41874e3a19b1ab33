"""What every driver must make of a host that is killed in the middle of an act.

Each act is done by a process of its own that is killed at a random moment; a fresh driver object must
then make sense of what is there. The seed is in each test's output, and `RT_TEST_SEED` sets it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtools.platform.core.ports.driver import Machine
from runtools.testing.contracts import victim
from runtools.testing.contracts.driver_rig import DriverRig


@pytest.fixture
def chance() -> random.Random:
    """Random moments that can be had again."""
    seed = int(os.environ.get("RT_TEST_SEED") or random.randrange(2**32))
    print(f"RT_TEST_SEED={seed}")  # noqa: T201
    return random.Random(seed)


class DriverCrashContract:
    """Kill, look, go on."""

    async def test_in_a_boot(self, rig: DriverRig, chance: random.Random) -> None:
        async for machine in _rounds(rig):
            await _killed(rig, chance, "boot", machine)
            await rig.soon(rig.driver.kill(machine))
            assert not await rig.driver.is_live(machine)
            await rig.soon(rig.driver.boot(machine))
            await rig.answers(machine)

    async def test_in_a_suspend(self, rig: DriverRig, chance: random.Random) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        for _ in range(rig.rounds):
            await _killed(rig, chance, "suspend", machine)
            if await rig.driver.is_live(machine):
                await rig.soon(rig.driver.resume(machine))
                await rig.ticks_on(machine)
                await rig.soon(rig.driver.suspend(machine))
            else:
                await rig.soon(rig.driver.suspend(machine))  # it was finished, or this raises
            await rig.soon(rig.driver.resume(machine))
            await rig.ticks_on(machine)

    async def test_in_a_resume(self, rig: DriverRig, chance: random.Random) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        for _ in range(rig.rounds):
            await rig.soon(rig.driver.suspend(machine))
            await _killed(rig, chance, "resume", machine)
            await rig.soon(rig.driver.resume(machine))
            assert await rig.driver.is_live(machine)
            await rig.ticks_on(machine)

    async def test_in_a_capture(self, rig: DriverRig, chance: random.Random) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        for n in range(rig.rounds):
            half = rig.folder / f"half-{n}"
            half.mkdir(mode=0o711)
            await _killed(rig, chance, "capture", machine, half)
            await rig.soon(rig.driver.resume(machine))
            await rig.ticks_on(machine)
        await rig.clone(await rig.captured(machine), machine)

    async def test_in_a_clone(self, rig: DriverRig, chance: random.Random) -> None:
        original = await rig.live()
        capture = await rig.captured(original)
        for _ in range(rig.rounds):
            disk = capture / "overlay.img"
            machine = await rig.machine(disk=disk, token=original.boot_token)
            await _killed(rig, chance, "clone", machine, capture)
            await rig.soon(rig.driver.kill(machine))
            assert not await rig.driver.is_live(machine)
        await rig.clone(capture, original)

    async def test_in_a_kill(self, rig: DriverRig, chance: random.Random) -> None:
        async for machine in _rounds(rig):
            await rig.soon(rig.driver.boot(machine))
            await rig.answers(machine)
            await rig.sh(machine, "echo kept > /root/file; sync")
            await _killed(rig, chance, "kill", machine)
            await rig.soon(rig.driver.kill(machine))
            assert not await rig.driver.is_live(machine)
            await rig.soon(rig.driver.boot(machine))
            await rig.answers(machine)
            assert await rig.sh(machine, "cat /root/file") == "kept"


async def _rounds(rig: DriverRig) -> AsyncIterator[Machine]:
    for _ in range(rig.rounds):
        machine = await rig.machine()
        yield machine
        await rig.soon(rig.driver.kill(machine))


async def _killed(
    rig: DriverRig, chance: random.Random, act: str, machine: Machine, capture: Path | None = None
) -> None:
    """Have the act done by a process that is killed at a random moment of it."""
    words = [sys.executable, "-m", victim.__name__, rig.factory, act, victim.as_text(machine)]
    process = await asyncio.create_subprocess_exec(
        *words, str(capture or ""), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(rig.patience):
            assert await process.stdout.readline() == b"ready\n"
        process.stdin.write(b"go\n")
        await process.stdin.drain()
        await asyncio.sleep(chance.uniform(0, rig.window))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    rig.restart()
