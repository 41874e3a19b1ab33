"""What is said to a sandbox that may sleep, by OpenSSH's client, where its org has limits on what runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from runtools.errors import QuotaExceeded
from runtools.platform.gateway import rousing
from runtools.platform.gateway.ssh import wires
from runtools.platform.gateway.ssh.requests import Requests
from runtools.platform.gateway.ssh.wires import SandboxWire
from runtools.testing.api_world import holds
from runtools.testing.ssh_clients import background, ends, says
from runtools.testing.ssh_world import SANDBOX, SshWorld, ssh_world, sshd_program

pytestmark = [
    pytest.mark.skipif(
        sshd_program() is None or os.geteuid() != 0, reason="needs openssh-server, and root for it"
    ),
]


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[SshWorld]:
    async with ssh_world(tmp_path) as made:
        yield made


@pytest.fixture
def always_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is said is said after a silence."""
    monkeypatch.setattr(rousing, "QUIET_SECONDS", -1.0)


def _is_woken(stream: SandboxWire) -> bool:
    """Whether its sandbox is being woken for it."""
    assert stream._rousing is not None
    return stream._rousing.is_under_way


async def _answers(process: asyncio.subprocess.Process, word: bytes) -> None:
    """That a session of `cat` does."""
    assert process.stdin is not None
    process.stdin.write(word + b"\n")
    await says(process, word)


@pytest.mark.usefixtures("always_quiet")
class TestWithinLimits:
    async def test_it_is_woken_before_it_hears_of_it(self, world: SshWorld) -> None:
        world.doorway.limited = True
        async with background(world.ssh("--", "cat")) as process:
            await _answers(process, b"one")
            assert world.reach.wakes == [False]
            before = len(world.doorway.woken)
            await _answers(process, b"two")
            assert world.doorway.woken[before:]
            assert set(world.doorway.woken) == {SANDBOX}

    async def test_it_is_woken_once_for_all_who_are_in_by_one_key(self, world: SshWorld) -> None:
        world.doorway.limited = True
        async with (
            background(world.ssh("--", "cat")) as one,
            background(world.ssh("--", "cat")) as two,
        ):
            for process in (one, two):
                await _answers(process, b"before")
            await holds(lambda: not any(map(_is_woken, world.house.streams)))
            before = len(world.doorway.woken)
            world.doorway.room.clear()
            for process in (one, two):
                assert process.stdin is not None
                process.stdin.write(b"after\n")
            await holds(lambda: all(map(_is_woken, world.house.streams)))
            assert len(world.doorway.woken) == before + 1
            world.doorway.room.set()
            for process in (one, two):
                await says(process, b"after")

    async def test_limits_that_come_later_count_for_who_is_in(self, world: SshWorld) -> None:
        async with background(world.ssh("--", "cat")) as process:
            await _answers(process, b"one")
            assert (world.doorway.woken, world.reach.wakes) == ([], [True])
            world.doorway.limited = True
            await world.house.look()
            await _answers(process, b"two")
            assert world.doorway.woken

    async def test_where_nothing_more_may_run_it_says_so_and_ends(self, world: SshWorld) -> None:
        async with background(world.ssh("--", "cat")) as process:
            await _answers(process, b"one")
            world.doorway.limited = True
            world.doorway.asleep_for_good = QuotaExceeded("the org may have 1 running sandboxes")
            await world.house.look()
            assert process.stdin is not None
            process.stdin.write(b"two\n")
            code, err = await ends(process)
        assert (code, "the org may have 1 running sandboxes" in err) == (255, True)
        await holds(lambda: not world.house.inside and not len(world.house.places))

    async def test_a_client_that_asks_whether_anybody_is_there_is_answered(
        self, world: SshWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else it would give up while the sandbox waits for room; and its asking wakes nobody."""
        asked: list[bytes] = []
        came = Requests.came

        def noted(requests: Requests, payload: bytes, go_on: Callable[[], object]) -> bool:
            asked.extend([payload] if b"keepalive@openssh.com" in payload else [])
            return came(requests, payload, go_on)

        monkeypatch.setattr(Requests, "came", noted)
        world.doorway.limited = True
        alive = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3")
        async with background(world.ssh(*alive, "--", "cat")) as process:
            await _answers(process, b"one")
            woken = len(world.doorway.woken)
            await holds(lambda: asked)
            assert len(world.doorway.woken) == woken
            world.doorway.room.clear()
            assert process.stdin is not None
            process.stdin.write(b"two\n")
            await holds(lambda: len(world.doorway.woken) > woken)
            asked.clear()
            await holds(lambda: len(asked) > 4)  # unanswered, it asks three times
            world.doorway.room.set()
            await says(process, b"two")

    async def test_what_waits_is_bounded(self, world: SshWorld) -> None:
        world.doorway.limited = True
        async with background(world.ssh("--", "echo in; exec wc -c")) as process:
            await says(process, b"in")  # else it would wait for its session, and send nothing
            [stream] = world.house.streams
            await holds(lambda: not _is_woken(stream))
            world.doorway.room.clear()
            assert process.stdin is not None
            process.stdin.write(b"x" * (16 << 20))
            await holds(lambda: stream.blocks)
            assert stream._rousing is not None
            assert stream._rousing.size < 3 * wires.HIGH
            world.doorway.room.set()
            await process.stdin.drain()
            process.stdin.close()
            await says(process, str(16 << 20).encode())

    async def test_nothing_is_lost_or_turned_round(self, world: SshWorld) -> None:
        world.doorway.limited = True
        data = os.urandom(4 << 20)
        code, out, err = await world.run(world.ssh("--", "sha256sum"), stdin=data)
        assert (code, out.split()[0].decode()) == (0, hashlib.sha256(data).hexdigest()), err
        assert len(world.doorway.woken) > 10


async def test_who_leaves_wakes_nobody(world: SshWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a byte is said to the sandbox: it would wake for a goodbye."""
    async with background(world.ssh("--", "echo in; exec cat")) as process:
        await says(process, b"in")
        said: list[int] = []
        monkeypatch.setattr(SandboxWire, "write", lambda _, data: said.append(len(data)))
        process.terminate()
        await process.wait()
        await holds(lambda: not world.house.inside and not len(world.house.places))
        await holds(lambda: not world.house.streams)
        assert said == []
