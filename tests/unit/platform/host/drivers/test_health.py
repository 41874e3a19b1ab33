"""A VMM that is alive but stands still, scripted."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace

import pytest
from tests.unit.platform.host.drivers.test_command import MACHINE

from runtools.platform.core.ports.driver import Machine, VmmFailed
from runtools.platform.host.drivers.qemu import driver, health, launch, saving
from runtools.platform.host.drivers.qemu.driver import QemuDriver
from runtools.platform.host.drivers.qemu.groups import Groups, Mounted
from runtools.platform.host.drivers.qemu.place import Pids, Place
from runtools.platform.host.drivers.qemu.qmp import listen


class Vmm:
    """Says its state, and what it was told."""

    def __init__(self, machine: Machine) -> None:
        self.place = Place(machine)
        self.status = "running"
        self.told: list[str] = []

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\n')
        while order := await reader.readline():
            asked = json.loads(order)
            self.told.append(asked["execute"])
            answer = {"return": {"status": self.status}, "id": asked["id"]}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()


@pytest.fixture
def machine(tmp_path):
    made = replace(MACHINE, folder=tmp_path, uid=os.getuid())
    Place(made).make_folders()
    return made


@pytest.fixture
async def vmm(machine):
    made = Vmm(machine)
    server = await asyncio.start_unix_server(made.converse, sock=listen(made.place.qmp))
    yield made
    server.close()


@pytest.mark.parametrize("status", ["running", "paused", "inmigrate", "prelaunch"])
async def test_one_that_is_well_or_at_work_is_left_alone(machine, vmm, status):
    vmm.status = status
    assert await health.stuck(machine) is None
    assert "cont" not in vmm.told


@pytest.mark.parametrize("status", ["internal-error", "guest-panicked"])
async def test_one_that_will_never_go_on_is_named(machine, vmm, status):
    vmm.status = status
    assert await health.stuck(machine) == f"QEMU says {status}"


async def test_one_that_waits_for_the_disk_is_told_to_go_on(machine, vmm):
    vmm.status = "io-error"
    assert await health.stuck(machine) is None
    assert vmm.told[-1] == "cont"


async def test_one_that_does_not_answer_is_not_called_stuck(machine):
    assert await health.stuck(machine) is None


async def test_a_broken_one_is_not_saved(machine, vmm):
    vmm.status = "internal-error"
    with pytest.raises(VmmFailed, match="not worth saving: QEMU says internal-error"):
        async with saving.stopped(machine):
            pass
    assert "stop" not in vmm.told


async def test_a_watch_ends_what_is_stuck_and_says_so(machine, vmm, monkeypatch):
    ended = []

    async def end(one, _):
        ended.append(one.id)

    async def pids(_):
        return Pids(os.getpid(), 0)

    monkeypatch.setattr(driver, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(launch, "pids", pids)
    monkeypatch.setattr(launch, "runs", lambda *_: True)
    monkeypatch.setattr(launch, "end", end)
    watching = asyncio.create_task(QemuDriver(None, Groups("tests", Mounted(1, {}))).watch(machine))
    async with asyncio.timeout(60):
        while vmm.told.count("query-status") < 3:
            await asyncio.sleep(0.01)
        assert not watching.done()
        vmm.status = "internal-error"
        assert (await watching).stuck == "QEMU says internal-error"
    assert ended == [machine.id]
