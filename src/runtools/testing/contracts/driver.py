"""What every driver must do. A test module subclasses `DriverContract` and gives it a ``rig``.

class TestMine(DriverContract):
@pytest.fixture
async def rig(self, …) -> AsyncIterator[DriverRig]: …
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace

import pytest

from runtools.errors import GuestUnreachable
from runtools.platform.core.ports.driver import Exit, Machine, VmmFailed
from runtools.platform.host.disk.files import grow
from runtools.platform.host.guest.channel import Refused
from runtools.platform.host.guest.client import GuestClient
from runtools.testing.contracts.driver_rig import DISK_MB, DriverRig

_STILL_SECONDS = 0.5


class DriverContract:
    """Boot, clone, suspend, resume, capture, kill, watch."""

    # --- boot and kill ---

    async def test_a_booted_machine_is_live_and_answers(self, rig: DriverRig) -> None:
        machine = await rig.live()
        assert await rig.driver.is_live(machine)
        assert await rig.sh(machine, "echo $((6*7))") == "42"
        assert await rig.driver.memory_bytes(machine) > 1024 * 1024

    async def test_capabilities_are_stated(self, rig: DriverRig) -> None:
        told = await rig.driver.probe()
        assert told.isolation in {"hardware", "emulated"}
        assert told.accelerator
        assert told.reason

    async def test_a_boot_that_fails_leaves_nothing(self, rig: DriverRig) -> None:
        machine = await rig.machine()
        with pytest.raises(VmmFailed):
            await rig.soon(rig.driver.boot(replace(machine, base=rig.folder / "missing")))
        assert not await rig.driver.is_live(machine)

    async def test_the_agent_asks_for_the_boot_token(self, rig: DriverRig) -> None:
        machine = await rig.live()
        stranger = GuestClient(lambda: rig.driver.connect(machine), "0" * 64)
        with pytest.raises(Refused):
            await stranger.hello()
        await stranger.close()

    async def test_a_killed_machine_is_gone(self, rig: DriverRig) -> None:
        machine = await rig.live()
        watcher = asyncio.create_task(rig.driver.watch(machine))
        await rig.soon(rig.driver.kill(machine))
        assert not await rig.driver.is_live(machine)
        assert (await rig.soon(_result(watcher))).code != 0
        with pytest.raises((ConnectionError, TimeoutError)):
            await rig.driver.connect(machine)

    async def test_nothing_to_kill_is_no_error(self, rig: DriverRig) -> None:
        machine = await rig.machine()
        await rig.soon(rig.driver.kill(machine))
        await rig.soon(rig.driver.boot(machine))
        await rig.soon(rig.driver.kill(machine))
        await rig.soon(rig.driver.kill(machine))

    async def test_the_disk_survives_a_kill(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.sh(machine, "echo kept > /root/file; sync")
        await rig.soon(rig.driver.kill(machine))
        await rig.soon(rig.driver.boot(machine))
        await rig.answers(machine)
        assert await rig.sh(machine, "cat /root/file") == "kept"

    async def test_a_disk_is_all_that_another_machine_needs(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.sh(machine, "echo kept > /root/file; sync")
        await rig.soon(rig.driver.kill(machine))
        heir = await rig.machine(disk=machine.overlay)
        shutil.rmtree(machine.folder)
        await rig.soon(rig.driver.boot(heir))
        await rig.answers(heir)
        assert await rig.sh(heir, "cat /root/file") == "kept"

    # --- ends ---

    async def test_an_end_that_nobody_asked_for_is_seen(self, rig: DriverRig) -> None:
        machine = await rig.live()
        watcher = asyncio.create_task(rig.driver.watch(machine))
        await rig.assassinate(machine)
        end = await rig.soon(_result(watcher))
        assert (end.code, end.signal) in {(None, 9), (None, None)}
        assert not await rig.driver.is_live(machine)

    async def test_an_end_while_nobody_looked_is_told_later(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.assassinate(machine)
        await rig.not_live(machine)
        rig.restart()
        assert (await rig.ended(machine)).code != 0

    async def test_the_console_can_be_read_after_the_end(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.sh(machine, "for i in 1 2 3; do echo last words $i >> /dev/console; done")
        async with asyncio.timeout(rig.patience):
            while not any("last words 3" in line for line in await _console(rig, machine)):
                await asyncio.sleep(0.05)
        await rig.assassinate(machine)
        assert any("last words 3" in line for line in (await rig.ended(machine)).console_tail)
        await rig.soon(rig.driver.kill(machine))
        lines = await rig.driver.console(machine, 2)
        assert len(lines) == 2
        assert "last words 3" in " ".join(await _console(rig, machine))

    # --- suspend and resume ---

    async def test_processes_go_on_after_a_resume(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        await rig.soon(rig.driver.suspend(machine))
        assert not await rig.driver.is_live(machine)
        with pytest.raises((ConnectionError, TimeoutError)):
            await rig.driver.connect(machine)
        await rig.soon(rig.driver.resume(machine))
        assert await rig.driver.is_live(machine)
        await rig.ticks_on(machine)

    async def test_it_can_be_done_again_and_again(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        for _ in range(3):
            await rig.soon(rig.driver.suspend(machine))
            await rig.soon(rig.driver.resume(machine))
            await rig.ticks_on(machine)

    async def test_a_suspend_ends_the_watch(self, rig: DriverRig) -> None:
        machine = await rig.live()
        watcher = asyncio.create_task(rig.driver.watch(machine))
        await rig.soon(rig.driver.suspend(machine))
        await rig.soon(_result(watcher))
        await rig.soon(rig.driver.resume(machine))
        watcher = asyncio.create_task(rig.driver.watch(machine))
        await rig.answers(machine)
        assert not watcher.done()
        await rig.assassinate(machine)
        assert (await rig.soon(_result(watcher))).code != 0

    async def test_a_suspend_that_was_done_is_answered(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.soon(rig.driver.suspend(machine))
        rig.restart()
        await rig.soon(rig.driver.suspend(machine))
        await rig.soon(rig.driver.resume(machine))
        await rig.answers(machine)

    async def test_a_dead_machine_cannot_be_suspended(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.soon(rig.driver.kill(machine))
        with pytest.raises(VmmFailed):
            await rig.soon(rig.driver.suspend(machine))

    async def test_a_state_is_used_up_by_a_resume(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.soon(rig.driver.suspend(machine))
        await rig.soon(rig.driver.resume(machine))
        await rig.soon(rig.driver.kill(machine))
        with pytest.raises(VmmFailed):
            await rig.soon(rig.driver.suspend(machine))
        with pytest.raises(VmmFailed):
            await rig.soon(rig.driver.resume(machine))
        assert not await rig.driver.is_live(machine)

    async def test_a_resume_of_a_live_machine_is_no_error(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        await rig.soon(rig.driver.resume(machine))
        await rig.ticks_on(machine)

    async def test_a_resume_that_failed_leaves_the_state_whole(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        await rig.soon(rig.driver.suspend(machine))
        aside = machine.overlay.rename(machine.overlay.with_name("aside"))
        with pytest.raises(VmmFailed):
            await rig.soon(rig.driver.resume(machine))
        assert not await rig.driver.is_live(machine)
        aside.rename(machine.overlay)
        await rig.soon(rig.driver.resume(machine))
        await rig.ticks_on(machine)

    async def test_a_kill_does_not_take_a_suspended_state(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        await rig.soon(rig.driver.suspend(machine))
        await rig.soon(rig.driver.kill(machine))
        await rig.soon(rig.driver.resume(machine))
        await rig.ticks_on(machine)

    # --- capture and clone ---

    async def test_a_captured_machine_runs_on(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        took: list[bool] = []

        async def while_still() -> None:
            took.append(await _is_mute(rig, machine))

        into = rig.folder / "capture"
        into.mkdir(mode=0o711)
        stood = await rig.soon(rig.driver.capture(machine, into, while_still))
        assert took == [True]
        assert stood >= _STILL_SECONDS * 1000
        await rig.ticks_on(machine)

    async def test_a_capture_that_fails_lets_the_machine_run_on(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)

        async def while_still() -> None:
            raise OSError("the disk is full")

        into = rig.folder / "capture"
        into.mkdir(mode=0o711)
        with pytest.raises(OSError, match="the disk is full"):
            await rig.soon(rig.driver.capture(machine, into, while_still))
        await rig.ticks_on(machine)

    async def test_a_suspended_machine_can_be_captured(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        await rig.sh(machine, "echo one > /root/file; sync")
        await rig.soon(rig.driver.suspend(machine))
        capture = await rig.captured(machine)
        assert not await rig.driver.is_live(machine)
        clone = await rig.clone(capture, machine)
        assert await rig.sh(clone, "cat /root/file") == "one"
        await rig.soon(rig.driver.resume(machine))
        await rig.ticks_on(machine)

    async def test_clones_are_machines_of_their_own(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        await rig.sh(machine, "echo one > /root/file; sync")
        capture = await rig.captured(machine)
        first, second = [await rig.clone(capture, machine) for _ in range(2)]
        await rig.sh(first, "echo two > /root/file; sync")
        await rig.sh(machine, "echo three > /root/file; sync")
        assert await rig.sh(second, "cat /root/file") == "one"
        assert await rig.sh(first, "cat /root/file") == "two"
        if (await rig.driver.probe()).memory_survives:
            await rig.ticks_on(first)
            await rig.ticks_on(second)
        await rig.ticks_on(machine)

    async def test_a_capture_outlives_what_it_was_made_of(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.sh(machine, "echo one > /root/file; sync")
        capture = await rig.captured(machine)
        await rig.soon(rig.driver.kill(machine))
        shutil.rmtree(machine.folder)
        rig.restart()
        clone = await rig.clone(capture, machine)
        assert await rig.sh(clone, "cat /root/file") == "one"

    async def test_a_clone_can_do_all_that_its_original_could(self, rig: DriverRig) -> None:
        machine = await rig.live()
        clone = await rig.clone(await rig.captured(machine), machine)
        await rig.ticking(clone)
        await rig.soon(rig.driver.suspend(clone))
        await rig.soon(rig.driver.resume(clone))
        await rig.ticks_on(clone)
        grandchild = await rig.clone(await rig.captured(clone), clone)
        assert await rig.sh(grandchild, "cat /root/ticks") != ""
        await rig.soon(rig.driver.kill(clone))
        await rig.answers(grandchild)

    async def test_a_clone_of_nothing_fails_and_leaves_nothing(self, rig: DriverRig) -> None:
        machine = await rig.machine()
        empty = rig.folder / "empty"
        empty.mkdir()
        with pytest.raises(VmmFailed):
            await rig.soon(rig.driver.clone(machine, empty))
        assert not await rig.driver.is_live(machine)

    async def test_a_machine_goes_back_to_a_capture_of_itself(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.sh(machine, "echo one > /root/file; sync")
        capture = await rig.captured(machine)
        await rig.sh(machine, "echo two > /root/file; sync")
        await rig.soon(rig.driver.kill(machine))
        again = await rig.clone(capture, machine)
        assert await rig.sh(again, "cat /root/file") == "one"

    async def test_equal_machines_have_equal_fingerprints(self, rig: DriverRig) -> None:
        machine, other = await rig.machine(), await rig.machine()
        told = rig.driver.fingerprint(machine)
        assert dict(told) == dict(rig.driver.fingerprint(other))
        assert {"vmm", "machine", "accelerator"} <= set(told)

    # --- a host that restarts ---

    async def test_a_restarted_host_goes_on_with_a_live_machine(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await rig.ticking(machine)
        rig.restart()
        assert await rig.driver.is_live(machine)
        watcher = asyncio.create_task(rig.driver.watch(machine))
        await rig.ticks_on(machine)
        await rig.soon(rig.driver.suspend(machine))
        await rig.soon(_result(watcher))
        rig.restart()
        assert not await rig.driver.is_live(machine)
        await rig.soon(rig.driver.resume(machine))
        await rig.ticks_on(machine)
        rig.restart()
        await rig.soon(rig.driver.kill(machine))
        assert not await rig.driver.is_live(machine)

    # --- the disk ---

    async def test_a_disk_that_has_grown_is_seen_inside(self, rig: DriverRig) -> None:
        machine = await rig.live()
        await grow(machine.overlay, 2 * DISK_MB)
        await rig.soon(rig.driver.grow_disk(machine))
        size = await rig.soon(rig.guest(machine).grow_filesystem(2 * DISK_MB << 20))
        assert size > 1.5 * DISK_MB * 2**20

    async def test_it_says_what_a_live_machine_has_taken(self, rig: DriverRig) -> None:
        machine = await rig.live()
        first = await rig.driver.usage(machine)
        assert first is not None
        assert first.memory_bytes > 1 << 20
        await rig.sh(machine, "for i in $(seq 20000); do :; done")
        second = await rig.driver.usage(machine)
        assert second is not None
        assert second.age_seconds > first.age_seconds
        await rig.soon(rig.driver.kill(machine))
        assert await rig.driver.usage(machine) is None

    async def test_many_live_side_by_side(self, rig: DriverRig) -> None:
        first = await rig.live()
        capture = await rig.captured(first)
        # Clones start sooner than machines that boot, and live side by side all the same.
        machines = [first, await rig.clone(capture, first), await rig.clone(capture, first)]
        for machine in machines:
            await rig.sh(machine, f"echo {machine.id} > /root/file")
        said = [await rig.sh(machine, "cat /root/file") for machine in machines]
        assert said == [machine.id for machine in machines]


async def _result(task: asyncio.Task[Exit]) -> Exit:
    return await task


async def _console(rig: DriverRig, machine: Machine) -> list[str]:
    return await rig.driver.console(machine, 1000)


async def _is_mute(rig: DriverRig, machine: Machine) -> bool:
    """Whether the agent says nothing for a while."""
    guest = GuestClient(lambda: rig.driver.connect(machine), machine.boot_token)
    try:
        await guest.hello(_STILL_SECONDS)
    except GuestUnreachable:
        return True
    else:
        return False
    finally:
        await guest.close()
