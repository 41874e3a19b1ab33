"""The command line as people use it: processes, against a real api over a fake host."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from runtools import RunTools
from runtools.errors import SandboxPaused
from runtools.platform.core.states import State
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.fake_host import FakeHost
from runtools.testing.made_once import sqlite_url

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def data(self) -> Any:
        """What --json printed: one document and nothing else."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """`runtools` with the settings of one platform."""

    env: dict[str, str]
    folder: Path
    zygote: socket.socket

    def __call__(self, *argv: str | bytes, stdin: bytes = b"", **env: str) -> Done:
        body = {
            "argv": [os.fsencode(word).hex() for word in argv],
            "env": self.env | env,
            "cwd": str(self.folder),
        }
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            files = [file.fileno() for file in (given, out, err)]
            socket.send_fds(self.zygote, [json.dumps(body).encode()], files)
            answer = self.zygote.recv(64)
            assert answer, "the zygote is dead"
            out.seek(0)
            err.seek(0)
            return Done(int(answer), out.read(), err.read().decode())

    def ok(self, *argv: str, stdin: bytes = b"") -> Done:
        """A command that must succeed."""
        done = self(*argv, stdin=stdin)
        assert done.code == 0, done.err
        return done


@dataclass(frozen=True)
class Platform:
    """A running api, and the loop that it runs in."""

    url: str
    key: str
    world: api_world.World
    loop: asyncio.AbstractEventLoop


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """In a thread of its own, as commands are waited for in this one."""
    folder = tmp_path_factory.mktemp("platform")
    ready = threading.Event()
    made: dict[str, Any] = {}

    async def run() -> None:
        made["loop"], made["stop"] = asyncio.get_running_loop(), asyncio.Event()
        db = Database(sqlite_url(folder))
        async with api_world.world(db, folder) as world:
            made["platform"] = Platform(world.url, world.key, world, made["loop"])
            ready.set()
            await made["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    assert ready.wait(60), "the api did not start"
    yield made["platform"]
    made["loop"].call_soon_threadsafe(made["stop"].set)
    thread.join(20)


@pytest.fixture(scope="session")
def zygote() -> Iterator[socket.socket]:
    """A process that commands are forked from; see there."""
    ours, theirs = socket.socketpair()
    script = str(Path(__file__).with_name("zygote.py"))
    argv = [sys.executable, script, str(theirs.fileno())]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(argv, env=env, pass_fds=[theirs.fileno()]), theirs:
        ours.settimeout(60)
        yield ours
        ours.close()


@pytest.fixture
def cli(platform: Platform, zygote: socket.socket, tmp_path: Path) -> Cli:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RUNTOOLS_")}
    env |= {"RUNTOOLS_API_URL": platform.url, "RUNTOOLS_API_KEY": platform.key}
    env |= {"PYTHONPATH": str(ROOT / "src"), "RUNTOOLS_HOME": str(tmp_path / "home")}
    return Cli(env, tmp_path, zygote)


def wakes(rt: RunTools, sandbox: str) -> bool:
    """Whether it runs, as far as is reported by then."""
    until = time.monotonic() + 20
    while rt.sandboxes.get(sandbox).state != "running":
        if time.monotonic() > until:
            return False
    return True


def nobody_knows(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of sandboxes that were paused before they could say how their processes stand."""

    def unless_asleep(look: Any) -> Any:
        async def asked(sandbox_id: str, *args: Any) -> Any:
            if host.machines[sandbox_id].state is State.PAUSED:
                raise SandboxPaused(
                    f"{sandbox_id} is paused, and nobody knows",
                    hint=f"runtools sandbox resume {sandbox_id}",
                    details={"history": "1"},
                )
            return await look(sandbox_id, *args)

        return asked

    for look in (host.list_processes, host.get_process, host.wait_process):
        monkeypatch.setattr(host, look.__name__, unless_asleep(look))


@pytest.fixture
def rt(platform: Platform) -> Iterator[RunTools]:
    with RunTools(platform.key, platform.url) as client:
        yield client


@pytest.fixture
def sandbox(rt: RunTools) -> Iterator[str]:
    """A running one's id."""
    with rt.sandboxes.create() as made:
        yield made.id
