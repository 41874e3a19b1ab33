"""The walls around a VMM, seen from inside one that was taken over.

The VMM is a real one, in the middle of its life, and its calls are its own (`runtools.testing.taken`): its
files, its user, its view and both filters are what an attacker finds who has broken out of the guest. A
probe started in its place would show the outer walls alone, without what QEMU lays upon itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import stat
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from tests.vm.test_qemu_driver import (
    GROUPS,
    home,
    image,
    platform,
    rig,
    vmm_pid,
    warm,
)

from runtools.platform.core.ports.driver import Exit, Machine
from runtools.platform.host.drivers.qemu import view
from runtools.platform.host.drivers.qemu.ending import processes_of
from runtools.platform.host.drivers.qemu.place import Place
from runtools.sdk.shapes.inside import ExecRequest
from runtools.testing.taken import Taken, taken

__all__ = ["home", "image", "platform", "rig", "warm"]

pytestmark = pytest.mark.vm

_NEW_USER, _NEW_NET = 0x1000_0000, 0x4000_0000
_AT_CWD = -100
_PATIENCE = 60.0
OWN = {"box", "held", "base", "overlay", "ram", "kernel", "initrd", "devices", "console"}
SYSTEM = {"usr", "lib", "lib64", "etc", "dev"}


def software() -> set[str]:
    """What its program is made of, by the paths of this machine."""
    return set(asyncio.run(view._needed()))


@pytest.fixture(scope="module")
def program() -> set[str]:
    return software()


def everything(vmm: Taken, top: str) -> set[str]:
    """Every path that it finds below a folder."""
    found = set()
    for name in vmm.listed(top):
        path = f"{top.rstrip('/')}/{name}"
        found.add(path)
        with contextlib.suppress(NotADirectoryError):
            found |= everything(vmm, path)
    return found


def own_children(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(word) for word in text.split()}


class TestFiles:
    async def test_of_the_whole_tree_it_has_its_program_and_its_own(self, rig, program):
        machine = await rig.live()
        with taken(vmm_pid(machine)) as vmm:
            assert vmm.listed("/") == OWN | SYSTEM
            assert everything(vmm, "/dev") == {"/dev/null", "/dev/kvm"}
            for top in sorted(SYSTEM - {"dev"}):
                for path in everything(vmm, f"/{top}"):
                    above = {path, *(str(each) for each in Path(path).parents)}
                    below = any(one.startswith(f"{path}/") for one in program)
                    assert above & program or below, path

    async def test_there_is_no_way_to_the_hosts_tree(self, rig):
        machine, other = await rig.live(), await rig.live()
        paths = (
            *("/proc", "/proc/self/root", "/sys", "/run", "/var", "/root", "/tmp", "/home"),
            *("/etc/passwd", "/etc/shadow", "/dev/mem", "/dev/net/tun", "/dev/fuse", "/dev/vda"),
            *(str(machine.folder), str(other.folder), str(other.overlay), str(machine.base)),
            *("/../../etc/passwd", "/box/../../../../etc/shadow", "../../../../../etc/hostname"),
        )
        with taken(vmm_pid(machine)) as vmm:
            for path in paths:
                assert vmm.fails("openat", _AT_CWD, path, os.O_RDONLY, 0) in {"ENOENT", "ENOTDIR"}

    async def test_it_can_write_nothing_but_its_own(self, rig):
        machine = await rig.live()
        with taken(vmm_pid(machine)) as vmm:
            assert vmm.open("/overlay", os.O_RDWR) >= 0
            assert vmm.open("/box/mine", os.O_RDWR | os.O_CREAT) >= 0
            for path in (
                "/base",
                "/ram",
                "/devices",
                "/usr/bin/qemu-system-x86_64",
            ):  # a clone's RAM
                assert vmm.fails("openat", _AT_CWD, path, os.O_RDWR, 0) in {"EROFS", "EACCES"}
            for path in ("/new", "/usr/new", "/dev/new", "/etc/new", "/held/new"):
                flags = os.O_RDWR | os.O_CREAT
                assert vmm.fails("openat", _AT_CWD, path, flags, 0o600) in {"EROFS", "EACCES"}
            for path in ("/base", "/overlay", "/usr/bin/sh"):
                assert vmm.fails("unlinkat", _AT_CWD, path, 0) in {"EROFS", "EBUSY", "EACCES"}
            with pytest.raises(PermissionError):
                vmm.listed("/held")

    async def test_no_open_file_leads_out_and_the_lock_is_not_among_them(self, rig):
        machine = await rig.live()
        pid = vmm_pid(machine)
        lock = Place(machine).folder / "lock"
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            opened = fd.stat()
            assert not stat.S_ISDIR(opened.st_mode), fd.readlink()
            assert not os.path.samestat(opened, lock.stat())
            if stat.S_ISREG(opened.st_mode) and os.access(fd, os.W_OK):
                names = str(fd.readlink())
                assert names in {"/overlay", "/base"} or "memfd" in names or "deleted" in names, (
                    names
                )

    async def test_it_makes_no_device(self, rig):
        machine = await rig.live()
        with taken(vmm_pid(machine)) as vmm:
            disk = os.makedev(254, 0)
            made = vmm.fails("mknodat", _AT_CWD, "/box/disk", stat.S_IFBLK | 0o600, disk)
            assert made == "EPERM"


FAMILIES = ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG")
# What weaknesses of kernels are found in.
SHUT: tuple[tuple[str, tuple[int | str | bytes, ...]], ...] = (
    ("io_uring_setup", (8, bytes(120))),
    ("keyctl", (0, -3, 0)),
    ("bpf", (0, bytes(64), 64)),
    ("userfaultfd", (0,)),
    ("perf_event_open", (bytes(128), 0, -1, -1, 0)),
    ("unshare", (_NEW_USER,)),
    ("unshare", (_NEW_NET,)),
    ("clone", (_NEW_USER | signal.SIGCHLD, 0, 0, 0, 0)),
    ("setns", (0, 0)),
    ("mount", ("none", "/box", "tmpfs", 0, 0)),
    ("umount2", ("/usr", 2)),
    ("ptrace", (16, 1, 0, 0)),
    ("process_vm_readv", (1, 0, 0, 0, 0, 0)),
    ("setuid", (0,)),
    ("chroot", ("/box",)),
    ("fork", ()),
    ("execve", ("/usr/bin/sh", 0, 0)),
)


class TestKernel:
    async def test_it_has_no_network_and_no_netlink(self, rig):
        machine = await rig.live()
        with taken(vmm_pid(machine)) as vmm:
            for family in FAMILIES:
                for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
                    refused = vmm.fails("socket", getattr(socket, family), kind, 0)
                    assert refused == "EPERM", (family, kind)
        await rig.answers(machine)

    async def test_what_weaknesses_are_found_in_is_shut(self, rig):
        """Refused by our filter, or the thread's end by QEMU's; the host ends what is left either way.

        One machine is asked call by call; where a call was its end, another one goes on.
        """
        left = deque(SHUT)
        while left:
            machine = await rig.live()
            with taken(vmm_pid(machine)) as vmm:
                said = "EPERM"
                while left and said == "EPERM":
                    name, arguments = left.popleft()
                    said = vmm.fails(name, *arguments)
                    assert said in {"EPERM", "SIGSYS"}, (name, said)
            if said == "EPERM":  # all of it was refused, and it lives on
                await rig.answers(machine)
            await rig.soon(rig.driver.kill(machine))
            assert processes_of(machine.uid) == []


class TestOthers:
    async def test_it_cannot_signal_or_look_into_anybody(self, rig):
        machine, other = await rig.live(), await rig.live()
        pids = Place(machine).pids()
        assert pids is not None
        with taken(pids.vmm) as vmm:
            for pid in (1, os.getpid(), vmm_pid(other), pids.holder, *own_children(pids.holder)):
                if pid != pids.vmm:
                    assert vmm.fails("kill", pid, signal.SIGKILL) == "EPERM"
                    assert vmm.fails("kill", pid, 0) == "EPERM"
            # To all that may be signalled, which is nobody: the kernel says 0 of that.
            vmm.call("kill", -1, signal.SIGKILL)
            theirs = vmm.call("pidfd_open", vmm_pid(other), 0)
            assert vmm.fails("pidfd_getfd", theirs, 0, 0) in {"EPERM", "EBADF"}
        await rig.answers(other)
        await rig.answers(machine)

    async def test_nothing_of_the_platform_is_in_its_environment(self, rig):
        machine = await rig.live()
        text = Path(f"/proc/{vmm_pid(machine)}/environ").read_bytes()
        names = {word.split(b"=")[0].decode() for word in text.split(b"\0") if word}
        assert names <= {"PATH", "LANG", "HOME", "PWD", "OLDPWD", "SHLVL", "_"}

    async def test_every_group_holds_it(self, rig):
        machine = await rig.live()
        pid = vmm_pid(machine)
        if not GROUPS.usable:
            pytest.skip("no control groups here")
        wanted = f"/{GROUPS._name}/{machine.uid}"
        told = Path(f"/proc/{pid}/cgroup").read_text()
        for controller in GROUPS._found.controllers:
            assert any(
                controller in line.split(":")[1].split(",") and line.endswith(wanted)
                for line in told.splitlines()
            ) or (GROUPS._found.version == 2 and told.endswith(wanted + "\n"))


class TestEnd:
    """A VMM that was taken over and will not go."""

    async def test_lies_left_in_its_box_change_nothing(self, rig):
        machine = await rig.live()
        place = Place(machine)
        with taken(vmm_pid(machine)) as vmm:
            for name, text in (("pid", "1 1\n"), ("exit", "0\n"), ("lock", "")):
                fd = vmm.open(f"/box/{name}", os.O_WRONLY | os.O_CREAT)
                vmm.call("write", fd, text.encode(), len(text))
            vmm.call("prctl", 1, 0)  # no end with its holder
            vmm.call("prctl", 4, 0)  # nothing of it may be read by others
        assert await rig.driver.is_live(machine)
        assert place.exit_status() is None
        await rig.soon(rig.driver.kill(machine))
        assert processes_of(machine.uid) == []
        assert rig.driver.vacant(machine.uid)

    async def test_deaf_to_signals(self, rig):
        machine = await rig.live()
        ignore = (1).to_bytes(8, "little") + bytes(24)
        with taken(vmm_pid(machine)) as vmm:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                assert vmm.call("rt_sigaction", number, ignore, 0, 8) == 0
        os.kill(vmm_pid(machine), signal.SIGTERM)
        await rig.answers(machine)
        await rig.soon(rig.driver.kill(machine))
        assert processes_of(machine.uid) == []

    async def test_one_that_outlives_its_holder_keeps_its_user_until_it_is_ended(self, rig):
        machine = await rig.live()
        pids = Place(machine).pids()
        assert pids is not None
        with taken(pids.vmm) as vmm:
            assert vmm.call("prctl", 1, 0) == 0
        for pid in (pids.holder, *(own_children(pids.holder) - {pids.vmm})):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(_PATIENCE):
            while Place(machine).occupied():
                await asyncio.sleep(0.01)
        assert processes_of(machine.uid) == [pids.vmm]
        assert not rig.driver.vacant(machine.uid)
        await rig.soon(rig.driver.kill(machine))
        assert processes_of(machine.uid) == []
        assert rig.driver.vacant(machine.uid)

    async def test_one_that_is_well_ends_with_its_holder(self, rig):
        machine = await rig.live()
        pids = Place(machine).pids()
        assert pids is not None
        os.kill(pids.holder, signal.SIGKILL)
        await rig.not_live(machine)
        async with asyncio.timeout(_PATIENCE):
            while pids.vmm in processes_of(machine.uid):
                await asyncio.sleep(0.01)

    async def test_one_that_no_journal_owns_is_reclaimed(self, rig):
        if not GROUPS.usable:
            pytest.skip("no control groups here")
        mine, stray = await rig.live(), await rig.live()
        shutil.rmtree(Place(stray).folder)
        assert await rig.driver.reclaim({mine.uid}) == 1
        assert processes_of(stray.uid) == []
        assert rig.driver.vacant(stray.uid)
        await rig.answers(mine)
        assert await rig.driver.reclaim({mine.uid}) == 0

    async def test_a_stray_of_which_nothing_is_known_but_its_folder(self, rig):
        machine = await rig.live()
        unknown = replace(machine, uid=0, slot=replace(machine.slot, namespace=""))
        await rig.soon(rig.driver.kill(unknown))
        assert processes_of(machine.uid) == []


def memory_group(machine: Machine) -> Path:
    top = GROUPS._tops.get("memory")
    if top is None or GROUPS._found.version != 1:
        pytest.skip("needs version 1's memory hierarchy")
    return top / str(machine.uid)


class TestMemory:
    async def test_a_guest_that_uses_all_it_has_is_not_killed(self, rig):
        """Its memory full, its disk written over and over: pages of its files give way, it does not die."""
        machine = await rig.own_memory()
        group = memory_group(machine)
        await rig.sh(
            machine,
            # Out of the bound that the agent sets to all commands: what is tried is the machine's.
            "echo $$ > /sys/fs/cgroup/cgroup.procs; mount -o remount,size=95% /dev/shm; "
            # An emulated machine makes random bytes slowly: some of them, over and over.
            "head -c 4000000 /dev/urandom > /dev/shm/some; "
            "for n in $(seq 95); do cat /dev/shm/some; done > /dev/shm/full || true; "
            "for n in 1 2 3; do "
            "for n in $(seq 75); do cat /dev/shm/some; done | dd of=/root/big bs=1M conv=fsync; done; "
            "cat /root/big > /dev/null; rm /root/big",
        )
        await rig.answers(machine)
        assert GROUPS.out_of_memory(machine.uid) is None
        most = int((group / "memory.max_usage_in_bytes").read_text())
        assert most > machine.memory_mb << 20  # it was put to the test
        assert most <= int((group / "memory.limit_in_bytes").read_text())

    async def test_an_end_for_want_of_memory_is_told(self, rig):
        machine = await rig.live()
        group = memory_group(machine)
        watching = asyncio.create_task(rig.driver.watch(machine))
        hogging = asyncio.create_task(
            rig.guest(machine).exec(_hog())  # in memory of its own: pages of files would give way
        )
        used = int((group / "memory.usage_in_bytes").read_text())
        (group / "memory.limit_in_bytes").write_text(str(used + (32 << 20)))
        end = await rig.soon(_waited(watching))
        hogging.cancel()
        assert end.signal == signal.SIGKILL
        assert end.out_of_memory is not None
        assert "MB that it may have" in end.out_of_memory
        await rig.soon(rig.driver.kill(machine))
        assert rig.driver.vacant(machine.uid)


def _hog() -> ExecRequest:
    fill = "mount -o remount,size=95% /dev/shm; head -c 380000000 /dev/urandom > /dev/shm/full"
    return ExecRequest(command=fill, cwd="/", timeout_ms=int(_PATIENCE * 1000))


async def _waited(task: asyncio.Task[Exit]) -> Exit:
    return await task
