"""Control groups: version 1 on this kernel where it is there, version 2 against a model of its files.

The model has the files of version 2 that the kernel's documents (admin-guide/cgroup-v2) describe, with
the contents that they begin with: a group has those of a controller when the one above it gives them on,
none can be made, and what may only be read is not written. Nobody behind it acts on limits. Where a
machine has version 2 mounted without controllers, beside version 1, that what needs none (to admit, kill
and remove) is tried there for real.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.platform.host.drivers.qemu import ending, groups
from runtools.platform.host.drivers.qemu.driver import QemuDriver
from runtools.platform.host.drivers.qemu.groups import Groups, Limits, Mounted, mounted
from runtools.platform.kit import process
from runtools.testing.cgroups import CORE, OF_CONTROLLER, Kernel, said_by_the_kernel

LIMITS = Limits(memory_bytes=1 << 30, vcpus=2, pids=130)
UID = 0x7100_0000

DEBIAN_12 = """\
22 27 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
30 23 0:26 / {at} rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID = """\
31 24 0:27 / {at}/unified rw,nosuid,nodev,noexec,relatime shared:5 - cgroup2 cgroup2 rw
34 24 0:30 / /sys/fs/cgroup/memory rw,relatime shared:8 - cgroup cgroup rw,memory
35 24 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
36 24 0:32 / /sys/fs/cgroup/pids rw,relatime shared:10 - cgroup cgroup rw,pids
"""


class TestWhatIsMounted:
    def test_version_2(self, tmp_path):
        (tmp_path / "cgroup.controllers").write_text(
            "cpuset cpu io memory hugetlb pids rdma misc\n"
        )
        found = mounted(DEBIAN_12.format(at=tmp_path))
        assert found == Mounted(2, dict.fromkeys(groups.CONTROLLERS, tmp_path))

    def test_version_2_in_a_container_that_was_given_little(self, tmp_path):
        (tmp_path / "cgroup.controllers").write_text("pids\n")
        assert mounted(DEBIAN_12.format(at=tmp_path)) == Mounted(2, {"pids": tmp_path})

    def test_version_1_beside_a_version_2_without_controllers(self, tmp_path):
        (tmp_path / "unified").mkdir()
        (tmp_path / "unified/cgroup.controllers").write_text("\n")
        found = mounted(HYBRID.format(at=tmp_path))
        assert found == Mounted(
            1,
            {
                "memory": Path("/sys/fs/cgroup/memory"),
                "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
                "pids": Path("/sys/fs/cgroup/pids"),
            },
        )

    def test_nothing(self):
        assert mounted("22 27 0:21 / /proc rw shared:12 - proc proc rw\n").controllers == {}


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Version 2, after the documents."""
    kernel = Kernel(tmp_path)
    for name in ("mkdir", "rmdir", "write_text"):
        does = getattr(kernel, name)
        monkeypatch.setattr(Path, name, lambda *given, _does=does, **more: _does(*given, **more))
    return Groups("abcdef", Mounted(2, dict.fromkeys(groups.CONTROLLERS, tmp_path)))


class TestVersion2:
    def test_limits_are_written_where_the_documents_say(self, second, tmp_path):
        second.make(UID, LIMITS)
        top = tmp_path / "runtools-abcdef"
        for parent in (tmp_path, top):
            told = (parent / "cgroup.subtree_control").read_text().split()
            assert sorted(told) == ["cpu", "memory", "pids"]
        mine = top / str(UID)
        assert (mine / "memory.max").read_text() == str(1 << 30)
        assert (mine / "memory.swap.max").read_text() == "0"
        assert (mine / "cpu.max").read_text() == "300000 100000"
        assert (mine / "cpu.weight").read_text() == "200"
        assert (mine / "pids.max").read_text() == "130"
        assert int((top / "cpu.weight").read_text()) in range(1, 10_001)

    def test_no_file_is_asked_for_that_is_not_there(self, second, tmp_path):
        """The model is held to that, too: a group has what the one above gives on, and no more."""
        (tmp_path / "bare").mkdir()
        with pytest.raises(PermissionError):
            (tmp_path / "bare/memory.max").write_text("1")
        second.make(UID, LIMITS)
        mine = tmp_path / "runtools-abcdef" / str(UID)
        wanted = {*CORE, *(name for files in OF_CONTROLLER.values() for name in files)}
        assert {file.name for file in mine.iterdir()} == wanted
        with pytest.raises(OSError, match="can only be read"):
            (mine / "memory.events").write_text("")

    def test_a_kernel_that_counts_no_swap_bounds_the_rest(self, second, tmp_path, monkeypatch):
        monkeypatch.delitem(OF_CONTROLLER["memory"], "memory.swap.max")
        second.make(UID, LIMITS)
        mine = tmp_path / "runtools-abcdef" / str(UID)
        assert (mine / "memory.max").read_text() == str(1 << 30)
        assert not (mine / "memory.swap.max").exists()

    def test_controllers_that_are_not_given_here_are_an_error(self, second, tmp_path):
        said_by_the_kernel(tmp_path / "cgroup.controllers", "cpu pids\n")
        with pytest.raises(OSError, match="no such controller"):
            second.make(UID, LIMITS)

    def test_a_process_is_admitted_while_it_waits(self, second, tmp_path):
        second.make(UID, LIMITS)
        second.join(UID)  # no thread is moved by itself
        at = tmp_path / "runtools-abcdef" / str(UID) / "cgroup.procs"
        assert at.read_text() == ""
        second.admit(UID, 4711)
        assert at.read_text() == "4711"

    def test_all_are_killed_by_one_word(self, second, tmp_path):
        second.make(UID, LIMITS)
        second.kill(UID)
        mine = tmp_path / "runtools-abcdef" / str(UID)
        assert (mine / "cgroup.kill").read_text() == "1"
        assert (mine / "pids.max").read_text() == "0"

    def test_what_somebody_is_in_stays(self, second):
        second.make(UID, LIMITS)
        second.admit(UID, 4711)
        assert not second.remove(UID)
        assert second.there(UID)
        second.admit(UID, "")
        assert second.remove(UID)
        assert not second.there(UID)
        assert second.remove(UID)

    def test_an_end_for_want_of_memory_is_told(self, second, tmp_path):
        second.make(UID, LIMITS)
        events = tmp_path / "runtools-abcdef" / str(UID) / "memory.events"
        assert second.out_of_memory(UID) is None
        said_by_the_kernel(events, "low 0\nhigh 0\nmax 812\noom 0\noom_kill 0\noom_group_kill 0\n")
        assert second.out_of_memory(UID) is None
        said_by_the_kernel(events, "low 0\nhigh 0\nmax 812\noom 1\noom_kill 1\noom_group_kill 0\n")
        assert "1024 MB" in (second.out_of_memory(UID) or "")

    def test_strays_are_those_that_nobody_keeps(self, second):
        for uid in (UID, UID + 1):
            second.make(uid, LIMITS)
        assert second.strays({UID}) == {UID + 1}
        assert Groups("others", second._found).strays(()) == set()


@pytest.fixture
def first() -> Iterator[Groups]:
    found = groups.of_this_machine()
    if os.geteuid() != 0 or found.version != 1 or len(found.controllers) < 3:
        pytest.skip("needs root and the hierarchies of version 1")
    made = Groups(f"u{os.getpid()}", found)
    yield made
    for uid in made.strays(()):
        while not made.remove(uid):
            made.kill(uid)
    for top in made._tops.values():
        if top.exists():
            top.rmdir()


CHILDREN: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    """What a test that failed has left is ended with it, and is no other test's."""
    yield
    while CHILDREN:
        child = CHILDREN.pop()
        child.kill()
        child.wait(10)


def begun(command: str, **streams: int) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(["sh", "-c", command], **streams)  # type: ignore[call-overload]
    CHILDREN.append(child)
    return child


def started(made: Groups, command: str) -> subprocess.Popen[bytes]:
    """A process that begins in the groups, as a VMM does: by a thread that moved itself."""

    def start() -> None:
        made.join(UID)
        begun(command, stdin=subprocess.DEVNULL)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    return CHILDREN[-1]


# Every process of it begins others for ever, and goes on where there is no room for one more.
MORE_AND_MORE = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
    time.sleep(0.005)
"""


class TestVersion1:
    def test_what_is_started_is_in_every_group_and_we_are_in_none(self, first):
        first.make(UID, LIMITS)
        child = started(first, "exec sleep 60")
        for folder in first._folders(UID):
            # The kernel ends a thread a moment after Python has joined it.
            while os.getpid() in groups._members(folder):
                assert child.poll() is None
            assert groups._members(folder) == [child.pid]
        first.kill(UID)
        assert child.wait(10) == -signal.SIGKILL

    def test_the_kernel_holds_to_what_was_asked(self, first):
        first.make(UID, LIMITS)
        memory, cpu, pids = (first._tops[name] / str(UID) for name in groups.CONTROLLERS)
        assert (memory / "memory.limit_in_bytes").read_text().strip() == str(1 << 30)
        with_swap = memory / "memory.memsw.limit_in_bytes"
        if with_swap.exists():  # not where the kernel counts no swap
            assert with_swap.read_text().strip() == str(1 << 30)
        assert (cpu / "cpu.cfs_quota_us").read_text().strip() == "300000"
        assert (pids / "pids.max").read_text().strip() == "130"

    async def test_all_that_begins_ever_more_processes_is_ended(self, first):
        """What no filter kept from it: every one that is killed has left another."""
        first.make(UID, LIMITS)
        child = started(first, f"exec /usr/bin/python3 -c '{MORE_AND_MORE}'")
        async with asyncio.timeout(60):
            while len(groups._members(first._folders(UID)[0])) < 20:
                await asyncio.sleep(0)
        assert not first.remove(UID)
        assert await ending.end_all(UID, first)
        assert not first.there(UID)
        child.wait(10)

    def test_one_that_takes_too_much_memory_is_killed_and_it_is_told(self, first):
        first.make(UID, Limits(memory_bytes=64 << 20, vcpus=1, pids=20))
        child = started(
            first, "head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null; sleep 60"
        )
        while first.out_of_memory(UID) is None:
            assert child.poll() is None
        assert "64 MB" in (first.out_of_memory(UID) or "")
        first.kill(UID)
        child.wait(10)

    def test_a_thread_of_ours_is_never_killed(self, first):
        """One that joined and has not ended yet makes the whole process a member."""
        first.make(UID, LIMITS)
        joined, over = threading.Event(), threading.Event()

        def stay() -> None:
            first.join(UID)
            joined.set()
            over.wait(30)

        thread = threading.Thread(target=stay)
        thread.start()
        joined.wait(30)
        assert os.getpid() in groups._members(first._folders(UID)[0])
        first.kill(UID)
        assert not first.remove(UID)
        over.set()
        thread.join()
        while not first.remove(UID):
            pass


class TestVersion2OnThisKernel:
    """Its core, which needs no controllers."""

    @pytest.fixture
    def core(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Groups]:
        at = Path("/sys/fs/cgroup/unified")
        if os.geteuid() != 0 or not (at / "cgroup.procs").exists():
            pytest.skip("needs root and a mounted version 2")
        monkeypatch.setattr(Groups, "_values", lambda *_: {})
        made = Groups(f"u{os.getpid()}", Mounted(2, {"pids": at}))
        (at / made._name).mkdir()
        made._prepared = True
        yield made
        while not made.remove(UID):
            made.kill(UID)
        (at / made._name).rmdir()

    async def test_who_is_admitted_is_killed_and_the_group_goes(self, core):
        core.make(UID, LIMITS)
        child = begun("read -r go; sleep 60 & sleep 60", stdin=subprocess.PIPE)
        core.admit(UID, child.pid)
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.close()
        while len(groups._members(core._folders(UID)[0])) < 2:
            assert child.poll() is None
        assert await ending.end_all(UID, core)
        assert child.wait(10) == -signal.SIGKILL


class TestWithoutGroups:
    async def test_what_hides_from_other_users_is_found_and_ended(self):
        """Of a process that may not be dumped, what lies below its /proc entry is root's."""
        if os.geteuid() != 0:
            pytest.skip("needs root, to be somebody else")
        hides = (
            "import ctypes, time; ctypes.CDLL(None).prctl(4, 0); print(flush=True); time.sleep(60)"
        )
        child = begun(
            f"exec setpriv --reuid={UID} --clear-groups /usr/bin/python3 -c '{hides}'",
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        assert Path(f"/proc/{child.pid}/status").stat().st_uid == 0
        assert ending.processes_of(UID) == [child.pid]
        none = Groups("none", Mounted(1, {}))
        assert await ending.end_all(UID, none)
        assert child.wait(10) == -signal.SIGKILL
        child.stdout.close()

    async def test_what_runs_on_behind_its_first_thread_is_found_and_ended(self):
        if os.geteuid() != 0:
            pytest.skip("needs root, to be somebody else")
        leaves = (
            "import ctypes, threading, time; "
            "threading.Thread(target=lambda: (print(flush=True), time.sleep(60))).start(); "
            "ctypes.CDLL(None).syscall(60, 0)"
        )
        child = begun(
            f"exec setpriv --reuid={UID} --clear-groups /usr/bin/python3 -c '{leaves}'",
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert ending.runs_as(child.pid, UID)
        assert ending.processes_of(UID) == [child.pid]
        assert await ending.end_all(UID, Groups("none", Mounted(1, {})))
        assert ending.processes_of(UID) == []
        child.wait(10)
        child.stdout.close()

    async def test_a_stray_is_found_by_its_user_and_ended(self):
        """Also one that was started before groups could be used here."""
        if os.geteuid() != 0:
            pytest.skip("needs root, to be somebody else")
        uid = UID + 1000
        child = begun(f"exec setpriv --reuid={uid} --clear-groups sleep 60")
        while not ending.runs_as(child.pid, uid):
            assert child.poll() is None
        for found in (Mounted(1, {}), groups.of_this_machine()):
            driver = QemuDriver(None, Groups(f"u{os.getpid()}", found), [range(uid, uid + 9)])
            assert await driver.reclaim({uid}) == 0
        assert child.poll() is None
        assert await driver.reclaim({uid + 1}) == 1
        assert child.wait(10) == -signal.SIGKILL


class TestNumbersGivenAnew:
    """A process may end, and its number be another's, between the look and the kill."""

    @pytest.fixture
    def bystander(self) -> subprocess.Popen[bytes]:
        return begun("exec sleep 60")

    def test_whoever_is_no_member_any_more_is_not_killed(self, bystander, monkeypatch, tmp_path):
        made = Groups("abcdef", Mounted(1, {"pids": tmp_path}))
        looks = iter([[bystander.pid]])
        monkeypatch.setattr(groups, "_members", lambda _: next(looks, []))
        made.kill(UID)
        assert next(looks, None) is None
        assert not ending_now(bystander)

    def test_whoever_is_another_user_now_is_not_killed(self, bystander, monkeypatch):
        monkeypatch.setattr(ending, "processes_of", lambda _: [bystander.pid])
        assert not ending._over(UID, Groups("none", Mounted(1, {})))
        assert not ending_now(bystander)

    def test_whoever_is_meant_is_killed(self, bystander):
        process.kill_if(bystander.pid, lambda: True)
        assert bystander.wait(10) == -signal.SIGKILL
        process.kill_if(bystander.pid, lambda: True)  # it is gone: nothing happens


def ending_now(child: subprocess.Popen[bytes]) -> bool:
    """Whether a kill is on its way to it: one is delivered before the sender goes on."""
    pending = [
        line.split()[1]
        for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()
        if line.startswith(("SigPnd", "ShdPnd"))
    ]
    return child.poll() is not None or any(int(mask, 16) for mask in pending)
