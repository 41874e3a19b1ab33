"""The command line as people use it: processes, against a real api over a fake host."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtools import RunTools
from runtools.platform.kit.db import Database
from runtools.testing import api_world

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

    def __call__(self, *argv: str | bytes, stdin: bytes | None = None, **env: str) -> Done:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from runtools.cli import main; sys.exit(main())",
                *argv,
            ],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.env | env,
            cwd=self.folder,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def ok(self, *argv: str, stdin: bytes | None = None) -> Done:
        """A command that must succeed."""
        done = self(*argv, stdin=stdin)
        assert done.code == 0, done.err
        return done


@dataclass(frozen=True)
class Platform:
    """A running api."""

    url: str
    key: str


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """In a thread of its own, as commands are waited for in this one."""
    folder = tmp_path_factory.mktemp("platform")
    ready = threading.Event()
    made: dict[str, Any] = {}

    async def run() -> None:
        made["loop"], made["stop"] = asyncio.get_running_loop(), asyncio.Event()
        db = Database(f"sqlite:///{folder}/db/runtools.db")
        async with api_world.world(db, folder) as world:
            made["platform"] = Platform(world.url, world.key)
            ready.set()
            await made["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    assert ready.wait(60), "the api did not start"
    yield made["platform"]
    made["loop"].call_soon_threadsafe(made["stop"].set)
    thread.join(20)


@pytest.fixture
def cli(platform: Platform, tmp_path: Path) -> Cli:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RUNTOOLS_")}
    env |= {"RUNTOOLS_API_URL": platform.url, "RUNTOOLS_API_KEY": platform.key}
    env |= {"PYTHONPATH": str(ROOT / "src"), "RUNTOOLS_HOME": str(tmp_path / "home")}
    return Cli(env, tmp_path)


@pytest.fixture
def rt(platform: Platform) -> Iterator[RunTools]:
    with RunTools(platform.key, platform.url) as client:
        yield client


@pytest.fixture
def sandbox(rt: RunTools) -> Iterator[str]:
    """A running one's id."""
    with rt.sandboxes.create() as made:
        yield made.id
