"""A host as a process of its own that can be killed and started again, and what must hold after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from tests.flow.host.conftest import fresh, holders, until

from runtools.errors import HostUnavailable, RunToolsError
from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.host.engine import journal, ledger
from runtools.platform.host.engine.engine import uid_floor
from runtools.sdk.shapes.inside import ExecRequest

HOSTD = Path(__file__).with_name("hostd.py")
ROOT = Path(__file__).parents[3]


class LocalMachines:
    """A host of local machines, and how to see and end its machines from outside."""

    def argv(self, home: Path) -> list[str]:
        return [sys.executable, str(HOSTD), str(home)]

    def alive(self, home: Path) -> list[int]:
        """Pids, one for each machine; a suspended one is a process still."""
        return holders(home)

    def wanted(self, records: list[journal.Record]) -> int:
        return len([one for one in records if one.state != "stopped"])

    def first_pid(self, place: Path) -> int:
        """The process whose end is the end of the machine."""
        return int(json.loads((place / "holder.json").read_text())["first"])


class QemuMachines:
    """The real host of this platform. Its VMMs run as users of the install's own range."""

    def argv(self, home: Path) -> list[str]:
        return [sys.executable, "-m", "runtools.platform", "host"]

    def alive(self, home: Path) -> list[int]:
        floor = uid_floor((home / "install-id").read_text().strip())
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    uid = folder.stat().st_uid
                    if floor <= uid < floor + 0x10000 and "qemu" in (folder / "comm").read_text():
                        found.append(int(folder.name))
        return found

    def wanted(self, records: list[journal.Record]) -> int:
        return len([one for one in records if one.state == "running"])

    def first_pid(self, place: Path) -> int:
        """The VMM's."""
        return int((place / "box" / "pid").read_text().split()[0])


class Daemon:
    """The host process of one home. Every start may name a point at which it kills itself."""

    def __init__(self, home: Path, machines: LocalMachines | QemuMachines | None = None) -> None:
        self.home = home
        self.machines = machines or LocalMachines()
        self.host = RemoteHost(home / "run" / "host.sock")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, crash_at: str = "") -> None:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": "/tmp/runtools-test-pycache",
            "RUNTOOLS_HOME": str(self.home),
            "RUNTOOLS_DISK_HEADROOM_MB": "1",
            "RUNTOOLS_CRASH_AT": crash_at,
        }
        with (self.home / "hostd.log").open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.machines.argv(self.home), env=env, stderr=log
            )
        await until(self._answers, "the host's answer")

    async def _answers(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError((self.home / "hostd.log").read_text()[-3000:])
        try:
            await self.host.view()
        except HostUnavailable:
            return False
        return True

    async def dead(self) -> int:
        """Wait until it is; how it ended."""
        assert self._process is not None
        async with asyncio.timeout(30):
            return await self._process.wait()

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def close(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        await self.host.aclose()
        if self._process is not None:
            await self.kill()
        for pid in self.machines.alive(self.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def sh(self, box_id: str, command: str) -> str:
        request = ExecRequest(command=command, process_id=fresh("prc"))
        result = await self.host.exec(box_id, request)
        assert result.exit_code == 0, result
        return result.stdout.strip()

    # --- what must hold ---

    def records(self) -> dict[str, journal.Record]:
        found = {}
        for folder in (self.home / "host" / "sandboxes").iterdir():
            record = journal.load(folder)
            assert record is not None, f"{folder} has no journal"
            found[record.sandbox_id] = record
        return found

    async def settled(self) -> dict[str, journal.Record]:
        """All records, once no act is under way any more."""
        for box_id in self.records():
            await self.host.settled(box_id, 30)
        return self.records()

    async def check(self) -> dict[str, journal.Record]:
        """Nothing half-made, nothing lost, nothing owned twice."""
        records = await self.settled()
        living = {one.sandbox_id: one for one in records.values() if one.state != "stopped"}
        for record in records.values():
            assert record.under_way is None, record
            assert record.state != "creating", record
            entries = ledger.read(self.home / "host" / "sandboxes" / record.sandbox_id)
            assert entries[-1] == record.entry
            assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
            self._check_folders(record)
        lives = [record.life for record in living.values()]
        assert len({life.uid for life in lives}) == len(lives)
        slots = [life.slot for life in lives if life.slot is not None]
        assert len(set(slots)) == len(slots)
        wanted = self.machines.wanted(list(records.values()))
        await until(lambda: len(self.machines.alive(self.home)) == wanted, "a machine for each")
        host = self.home / "host"
        assert list((host / "captures").iterdir()) == []
        assert [f.name for f in (host / "snapshots").iterdir() if f.name.startswith(".")] == []
        return records

    def _check_folders(self, record: journal.Record) -> None:
        folder = self.home / "host" / "sandboxes" / record.sandbox_id
        lives = [int(one.name) for one in folder.iterdir() if one.name.isdigit()]
        wanted = [record.life.number] if record.life is not None else []
        assert lives == wanted, record

    def first_pid(self, box_id: str) -> int:
        """The first process of a sandbox's machine."""
        record = journal.load(self.home / "host" / "sandboxes" / box_id)
        assert record is not None
        assert record.life is not None
        place = self.home / "host" / "sandboxes" / box_id / str(record.life.number) / "vmm"
        return self.machines.first_pid(place)


async def gone_or_refused(call) -> str:
    """What became of a call to a host that is being killed."""
    try:
        await call
    except HostUnavailable:
        return "cut off"
    except RunToolsError as exc:
        return exc.code
    return "done"
