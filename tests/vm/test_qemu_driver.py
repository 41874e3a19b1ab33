"""The QEMU driver on real machines: the contract of every driver, and what is QEMU's own.

Machines of the contract are clones of one warm capture, because a cold boot takes its time under
emulation; the cold boot itself, and machines that have memory of their own, have tests below.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.vm.conftest import House

from runtools.errors import SnapshotUnfit
from runtools.platform.core.ports.driver import Exit, Machine, VmmFailed
from runtools.platform.host.drivers.qemu import launch, saving, trial
from runtools.platform.host.drivers.qemu.driver import QemuDriver
from runtools.platform.host.drivers.qemu.groups import Groups, of_this_machine
from runtools.platform.host.drivers.qemu.place import Place
from runtools.platform.host.drivers.qemu.probe import Prober
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.platform.host.templates.images import Image
from runtools.platform.host.templates.kernel import host_tsc_khz, kernel_arguments
from runtools.testing.contracts.driver import DriverContract
from runtools.testing.contracts.driver_crash import DriverCrashContract, chance
from runtools.testing.contracts.driver_rig import DriverRig

__all__ = ["chance"]

pytestmark = pytest.mark.vm

_PATIENCE = 120.0
_STATE = Path(tempfile.gettempdir()) / f"runtools-test-{os.getuid()}-accelerator"
PROBER = Prober(_STATE)
GROUPS = Groups("tests", of_this_machine())


@pytest.fixture(scope="session", autouse=True)
def platform() -> None:
    """None is needed here: the driver stands alone."""


def make_driver() -> QemuDriver:
    """A driver as a process of its own makes it, too."""
    return QemuDriver(PROBER, GROUPS)


def vmm_pid(machine: Machine) -> int:
    pids = Place(machine).pids()
    assert pids is not None
    return pids.vmm


def find_image() -> Image | None:
    """The newest template in the home of the tests."""
    home = Path(os.environ.get("RT_TEST_HOME", "/var/lib/runtools-test"))
    built = sorted((home / "host" / "templates").glob("*/kernel"), key=os.path.getmtime)
    if not built or os.geteuid() != 0:
        return None
    at = built[-1].parent
    return Image(at.name, "base-debian", 1, at, at / "base.erofs", at / "kernel", at / "initrd", 0)


@pytest.fixture(scope="session")
def image(house: House | None) -> Image:
    if house is not None:
        house.base.result()
    found = find_image()
    if found is None:
        pytest.skip("needs root and a template in RT_TEST_HOME")
    return found


@dataclass(frozen=True)
class Warm:
    capture: Path
    token: str


class QemuRig(DriverRig):
    """Machines that are live are clones of a warm capture."""

    warm: Warm

    async def live(self) -> Machine:
        disk = self.warm.capture / "overlay.img"
        machine = await self.machine(disk=disk, token=self.warm.token)
        await self.soon(self.driver.clone(machine, self.warm.capture))
        await self.answers(machine)
        return machine

    async def own_memory(self) -> Machine:
        """A live machine whose memory is its own: it was suspended once."""
        machine = await self.live()
        await self.soon(self.driver.suspend(machine))
        await self.soon(self.driver.resume(machine))
        await self.answers(machine)
        return machine


def make_rig(image: Image, folder: Path) -> QemuRig:
    return QemuRig(
        make=make_driver,
        factory=f"{__name__}:make_driver",
        image=image,
        folder=folder,
        network=NamespaceNetwork(f"t{secrets.token_hex(3)[:5]}", reserve=0),
        vmm=vmm_pid,
        patience=_PATIENCE,
        vcpus=1,
        memory_mb=512,
        rounds=4,
        window=0.25,
    )


async def _make_warm(image: Image, folder: Path) -> Warm:
    rig = make_rig(image, folder)
    try:
        machine = await DriverRig.live(rig)
        await rig.sh(machine, "sync")
        capture = await rig.captured(machine)
        return Warm(capture, machine.boot_token)
    finally:
        await rig.close()
        await rig.network.stop()


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder that VMMs can pass through, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="rt-qemu-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def warm(image: Image, home: Path) -> Warm:
    folder = home / "warm"
    folder.mkdir(mode=0o711)
    return asyncio.run(_make_warm(image, folder))


@pytest.fixture
async def rig(image: Image, warm: Warm, home: Path) -> AsyncIterator[QemuRig]:
    folder = Path(tempfile.mkdtemp(dir=home))
    folder.chmod(0o711)
    rig = make_rig(image, folder)
    rig.warm = warm
    await rig.driver.probe()
    yield rig
    await rig.close()
    await rig.network.stop()
    shutil.rmtree(folder)


class TestQemuDriver(DriverContract):
    pass


class TestKilledQemuDriver(DriverCrashContract):
    """Killed between 0 and 250 ms into an act, which is where nearly all of it happens."""

    async def test_in_a_boot(self, rig, chance):
        rig.rounds = 2  # each boots cold
        await super().test_in_a_boot(rig, chance)

    async def test_in_a_kill(self, rig, chance):
        rig.rounds = 1  # boots cold twice
        await super().test_in_a_kill(rig, chance)


class TestMemory:
    async def test_a_first_suspend_gives_a_clone_memory_of_its_own(self, rig):
        machine = await rig.live()
        assert not Place(machine).ram.exists()
        await rig.ticking(machine)
        await rig.soon(rig.driver.suspend(machine))
        assert Place(machine).ram.stat().st_size == machine.memory_mb << 20
        await rig.soon(rig.driver.resume(machine))
        await rig.ticks_on(machine)
        assert not Place(machine).run().private

    async def test_later_suspends_write_devices_alone(self, rig):
        machine = await rig.own_memory()
        ram = Place(machine).ram.stat().st_ino
        for _ in range(2):
            await rig.soon(rig.driver.suspend(machine))
            assert Place(machine).ram.stat().st_ino == ram
            assert Place(machine).state.stat().st_size < 1 << 20
            await rig.soon(rig.driver.resume(machine))
            await rig.answers(machine)

    async def test_own_memory_can_be_captured_alive(self, rig):
        machine = await rig.own_memory()
        await rig.ticking(machine)
        clone = await rig.clone(await rig.captured(machine), machine)
        await rig.ticks_on(clone)
        await rig.ticks_on(machine)

    async def test_memory_is_the_same_before_and_after(self, rig, monkeypatch):
        """Every byte that a guest wrote, through private, own and captured memory."""
        machine = await rig.live()
        await rig.sh(machine, "head -c 60000000 /dev/urandom > /dev/shm/data")
        written = await rig.sh(machine, "sha256sum < /dev/shm/data")
        clone = await rig.clone(await rig.captured(machine), machine)
        await rig.soon(rig.driver.suspend(machine))
        await rig.soon(rig.driver.resume(machine))
        await rig.answers(machine)
        once = await rig.clone(await rig.captured(machine), machine)
        monkeypatch.setattr(saving, "COPIED_ONCE", 0)
        twice = await rig.clone(await rig.captured(machine), machine)
        for one in (machine, clone, once, twice):
            assert await rig.sh(one, "sha256sum < /dev/shm/data") == written

    async def test_a_capture_may_go_while_its_clones_live(self, rig):
        parent = await rig.live()
        capture = await rig.captured(parent)
        clone = await rig.clone(capture, parent)
        await rig.ticking(clone)
        shutil.rmtree(capture)
        again = await rig.clone(await rig.captured(clone), clone)
        await rig.ticks_on(again)
        await rig.soon(rig.driver.suspend(clone))
        await rig.soon(rig.driver.resume(clone))
        await rig.ticks_on(clone)

    async def test_eight_live_on_one_capture(self, rig):
        parent = await rig.live()
        capture = await rig.captured(parent)
        clones = await asyncio.gather(*(rig.clone(capture, parent) for _ in range(8)))
        for clone in clones:
            assert await rig.sh(clone, "echo here") == "here"

    async def test_a_vmm_that_dies_in_a_capture_is_gone(self, rig):
        machine = await rig.own_memory()

        async def while_still() -> None:
            await rig.assassinate(machine)

        into = rig.folder / "capture"
        into.mkdir()
        with pytest.raises(VmmFailed):
            await rig.soon(rig.driver.capture(machine, into, while_still))
        await rig.not_live(machine)
        assert (await rig.ended(machine)).signal == signal.SIGKILL


class TestFitness:
    async def test_an_unfit_state_is_refused_by_name_and_stays(self, rig):
        machine = await rig.live()
        await rig.ticking(machine)
        await rig.soon(rig.driver.suspend(machine))
        with pytest.raises(SnapshotUnfit, match="memoryMb changed"):
            await rig.soon(rig.driver.resume(replace(machine, memory_mb=1024)))
        await rig.soon(rig.driver.resume(machine))
        await rig.ticks_on(machine)

    async def test_an_unfit_capture_is_refused_by_name(self, rig):
        machine = await rig.machine()
        with pytest.raises(SnapshotUnfit) as caught:
            await rig.soon(rig.driver.clone(replace(machine, vcpus=2), rig.warm.capture))
        assert caught.value.details["differs"] == {"vcpus": {"saved": "1", "now": "2"}}
        assert not await rig.driver.is_live(machine)


class TestProcess:
    """The VMM as a process of the host."""

    async def test_has_no_privilege(self, rig):
        machine = await rig.live()
        lines = Path(f"/proc/{vmm_pid(machine)}/status").read_text().splitlines()
        told = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        assert told["Uid"] == [str(machine.uid)] * 4
        assert told["Gid"] == [str(machine.uid)] * 4
        assert told["Groups"] == []
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(told[kind][0], 16) == 0
        assert told["NoNewPrivs"] == ["1"]
        assert told["Seccomp"] == ["2"]

    async def test_has_no_network_but_its_tap(self, rig):
        machine = await rig.live()
        pid = vmm_pid(machine)
        devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]

    async def test_knows_nothing_of_the_platform(self, rig, monkeypatch):
        monkeypatch.setenv("RUNTOOLS_SECRET", "hidden")
        machine = await rig.live()
        environment = Path(f"/proc/{vmm_pid(machine)}/environ").read_text()
        assert "hidden" not in environment
        assert machine.boot_token not in Path(f"/proc/{vmm_pid(machine)}/cmdline").read_text()

    async def test_can_write_nothing_outside_its_box(self, rig):
        machine = await rig.live()
        folder = machine.folder / "vmm"
        writable = [
            str(path.relative_to(machine.folder))
            for path in (folder, *folder.rglob("*"))
            if path.stat().st_uid == machine.uid and "box" not in path.parts
        ]
        assert writable == []

    async def test_leaves_no_process_behind(self, rig):
        machine = await rig.live()
        assert processes_of(machine.uid)
        await rig.soon(rig.driver.kill(machine))
        assert processes_of(machine.uid) == []

    async def test_is_not_mistaken_for_another_with_its_number(self, rig):
        machine = await rig.live()
        pids = Place(machine).pids()
        assert pids is not None
        assert launch.runs(machine, pids)
        assert not launch.runs(machine, replace(pids, vmm=pids.holder))
        assert not launch.runs(machine, replace(pids, vmm=os.getpid()))

    async def test_a_guest_that_goes_down_is_told_from_one_that_was_killed(self, rig):
        machine = await rig.live()
        watcher = asyncio.create_task(rig.driver.watch(machine))
        # It answers this before it goes down.
        await rig.sh(machine, "(sleep 2; sync; echo o > /proc/sysrq-trigger) > /dev/null 2>&1 &")
        end = await rig.soon(waited(watcher))
        assert (end.code, end.signal) == (0, None)

    async def test_an_endless_console_stays_within_bounds(self, rig):
        machine = await rig.live()
        await rig.sh(machine, "head -c 600000 /dev/zero | tr '\\0' x | fold > /dev/console")
        await rig.sh(machine, "printf '\\nthe end\\n' > /dev/console")
        async with asyncio.timeout(_PATIENCE):
            while "the end" not in await rig.driver.console(machine, 1):
                await asyncio.sleep(0.1)
        held = Place(machine).held
        assert sum(path.lstat().st_size for path in held.glob("console*")) < 1 << 20


class TestTrial:
    """The guests of the accelerator's probe, under emulation, which is known to work."""

    async def test_the_tiny_guest_passes(self):
        assert await trial.tiny_guest("tcg") is None

    async def test_a_templates_kernel_comes_to_its_end(self, image):
        arguments = kernel_arguments(host_tsc_khz())
        assert await trial.kernel("tcg", image.kernel, arguments, _PATIENCE) is None

    async def test_one_that_does_not_end_is_killed_in_time(self, image):
        said = await trial.kernel("tcg", image.kernel, "console=ttyS0", 0.3)
        assert said is not None
        assert "no end within 0.3 s" in said

    async def test_what_was_said_first_is_told(self, tmp_path):
        (tmp_path / "kernel").write_bytes(b"not a kernel")
        said = await trial.kernel("tcg", tmp_path / "kernel", "")
        assert said is not None
        assert "qemu" in said


def processes_of(uid: int) -> list[str]:
    return [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and entry.exists() and entry.stat().st_uid == uid
    ]


async def waited(task: asyncio.Task[Exit]) -> Exit:
    return await task
