"""What `up` refuses before it starts anything, and what it tells its processes."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runtools.errors import Conflict, Unavailable
from runtools.platform.api.keys import store
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.boot import home, running, status, uids, up
from runtools.platform.boot.api import database_url
from runtools.platform.boot.people import Person
from runtools.platform.core import access
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.crypto import digest
from runtools.platform.kit.db import Database
from runtools.sdk.shapes import Health

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("setting", ["api", "gateway", "ssh"])
@pytest.mark.parametrize("start", [up.foreground, up.detached])
async def test_a_port_that_somebody_has_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: object, setting: str
) -> None:
    monkeypatch.setattr(up, "_need_root", lambda: None)
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ports = {"api_port": 0, "gateway_port": 0, "ssh_port": 0, f"{setting}_port": port}
        with pytest.raises(Conflict, match=f"cannot listen on 127.0.0.1:{port}") as told:
            await start(Settings(home=home, **ports), {})  # type: ignore[arg-type,operator]
    assert f"RUNTOOLS_{setting.upper()}_PORT" in str(told.value.hint)
    assert not home.exists()


class Left:
    """A home that was up, of which one machine still runs; what is known of it cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder, accelerator="tcg")
        self.up: subprocess.Popen[bytes] | None = None
        first = uids.claim(self.settings, home.prepare(self.settings, Person("root", 0, 0)))
        box = self.settings.host_home / "sandboxes/sandbox-left/1/vmm/box"
        box.mkdir(parents=True)
        os.chown(box, first + 7, first + 7)
        (box.parents[2] / "machine.json").write_text("{")
        words = ["setpriv", f"--reuid={first + 7}", "--clear-groups", "sleep", "1000"]
        self.machine = subprocess.Popen(words)
        while not running.machines(self.settings):
            assert self.machine.poll() is None

    def start(self) -> None:
        """A process that holds the lock of a platform and ends when it is told to, as `up` does."""
        lock = home.lock_file(self.settings)
        self.up = subprocess.Popen(["flock", "--no-fork", lock, "sleep", "1000"])
        while home.holder(lock) is None:
            lock.write_text(str(self.up.pid))

    async def down(self) -> int:
        """As `runtools down`."""
        return await up.down(self.settings, {"RUNTOOLS_ACCELERATOR": "tcg"})

    def close(self) -> None:
        """End what is there."""
        for process in filter(None, (self.machine, self.up)):
            process.kill()
            process.wait()


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Left]:
    made = Left(tmp_path / "home")
    yield made
    made.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something as another user")
class TestDown:
    @pytest.mark.parametrize("is_up", [True, False])
    async def test_says_what_runs_on_and_why(self, left: Left, is_up: bool) -> None:
        if is_up:
            left.start()
        with pytest.raises(Unavailable, match="1 of its machines could not be paused") as told:
            await left.down()
        assert "sandbox-left: its record cannot be read" in told.value.message
        assert "do not copy the home" in (told.value.hint or "")
        assert left.machine.poll() is None
        assert left.up is None or left.up.wait(10) is not None

    async def test_is_silent_where_nothing_does(self, left: Left) -> None:
        left.start()
        left.machine.kill()
        left.machine.wait()
        assert await left.down() == 0

    async def test_ends_what_no_sandbox_owns(self, left: Left) -> None:
        shutil.rmtree(left.settings.host_home / "sandboxes/sandbox-left")
        assert await left.down() == 0
        assert left.machine.wait(10) == -signal.SIGKILL

    async def test_a_host_that_cannot_pause_is_no_success(self, left: Left) -> None:
        (left.settings.home / "config.toml").write_text("no_such_setting = 1")
        with pytest.raises(Unavailable, match="no_such_setting"):
            await left.down()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something as another user")
class TestForeground:
    @pytest.fixture(autouse=True)
    def over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It was told to end, and its parts have ended."""

        async def nothing(*_: object) -> None:
            pass

        monkeypatch.setattr(up, "_need_ports", lambda _: None)
        monkeypatch.setattr(up, "_first_start", nothing)
        monkeypatch.setattr(up, "_announce", nothing)
        monkeypatch.setattr(up.Supervisor, "run", nothing)

    async def test_names_what_it_leaves_running_and_is_no_success(
        self, left: Left, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await up.foreground(left.settings, {}) == running.LEFT
        assert "sandbox-left could not be paused" in caplog.text
        assert "do not copy the home" in caplog.text

    async def test_what_made_it_give_up_is_no_success(
        self, left: Left, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        async def gives_up(supervisor: up.Supervisor) -> None:
            asked.append(supervisor._patient)
            supervisor.gave_up = "api ended (exit code 1), 5 times one after the other"

        monkeypatch.setattr(up.Supervisor, "run", gives_up)
        # Where something runs on, that is what is to be known.
        assert await up.foreground(left.settings, {}, patient=False) == running.LEFT
        left.machine.kill()
        left.machine.wait()
        with pytest.raises(Unavailable, match="api ended"):
            await up.foreground(left.settings, {}, patient=False)
        assert asked == [False, False]

    async def test_is_silent_where_nothing_runs(
        self, left: Left, caplog: pytest.LogCaptureFixture
    ) -> None:
        left.machine.kill()
        left.machine.wait()
        assert await up.foreground(left.settings, {}) == 0
        assert "paused" not in caplog.text


SUDO = {"SUDO_UID": str(pwd.getpwnam("nobody").pw_uid)}
EMULATED = "host here runs sandboxes under emulation (tcg): slower"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform answers, and says that its host emulates."""

    async def ask(_: Settings) -> Health:
        return Health(status="ready", version="1", warnings=[EMULATED])

    async def nothing(*_: object) -> None:
        pass

    async def root(*_: object) -> Person:
        return Person("root", 0, 0)

    async def all_listens(_: Settings) -> list[str]:
        return []

    monkeypatch.setattr(status, "ask", ask)
    monkeypatch.setattr(status, "closed", all_listens)
    monkeypatch.setattr(up, "unprivileged", root)
    monkeypatch.setattr(up, "_need_ports", lambda _: None)
    monkeypatch.setattr(up.Supervisor, "run", nothing)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.usefixtures("answers")
class TestFirstStart:
    async def test_makes_an_org_and_a_key_that_only_the_caller_reads(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path / "home")
        assert await up.foreground(settings, SUDO) == 0
        at = settings.client_file.stat()
        assert (at.st_uid, at.st_mode & 0o777) == (int(SUDO["SUDO_UID"]), 0o600)
        told = json.loads(settings.client_file.read_bytes())
        assert told["apiUrl"] == f"http://{settings.api_host}:{settings.api_port}"
        assert told["installId"] == home.install_id(settings)
        db = Database(database_url(settings))
        try:
            org_id, second = await ensure_first(db, SystemClock())
            caller = await db.read(store.caller, digest(told["apiKey"]))
        finally:
            await db.close()
        assert second is None
        assert caller is not None
        assert (caller.org_id, caller.scopes) == (org_id, {access.ALL, *access.OPERATOR})
        # Another start, by whomever, keeps key and owner; and where the API is may have changed.
        moved = Settings(home=settings.home, api_port=settings.api_port + 1)
        assert await up.foreground(moved, {}) == 0
        again = settings.client_file.stat()
        assert (again.st_uid, again.st_mode & 0o777) == (at.st_uid, 0o600)
        url = f"http://{moved.api_host}:{moved.api_port}"
        assert json.loads(settings.client_file.read_bytes()) == {**told, "apiUrl": url}

    async def test_says_where_everything_is_and_warns_of_emulation(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = Settings(home=tmp_path / "home")
        started: list[Mapping[str, str]] = []

        async def start(_: object, *, env: Mapping[str, str], output: Path) -> int:
            """As the process that is started does: the key is the caller's, if it is told of one."""
            started.append(env)
            settings.client_file.write_text("{}")
            os.chown(settings.client_file, int(env["SUDO_UID"]), 0)
            return os.getpid()  # it does not end

        monkeypatch.setattr(up, "start_detached", start)
        assert await up.detached(settings, SUDO) == 0
        assert len(started) == 1
        assert capsys.readouterr().err.splitlines() == [
            f"ready    http://{settings.api_host}:{settings.api_port}",
            f"home     {settings.home}",
            f"key      {settings.client_file} (readable by nobody alone)",
            f"warning  {EMULATED}",
        ]

    async def test_one_that_fails_tells_what_it_has_said_itself(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = Settings(home=tmp_path / "home")
        ended = await asyncio.create_subprocess_exec("true")
        await ended.wait()

        async def start(_: object, *, output: Path, **__: object) -> int:
            with output.open("a") as log:
                log.write("the master key is not at hand\n")
            return ended.pid

        async def never(*_: object) -> bool:
            await asyncio.Event().wait()
            return True

        home.prepare(settings, Person("root", 0, 0))
        up.log_file(settings).write_text("of an earlier start\n")
        monkeypatch.setattr(up, "start_detached", start)
        monkeypatch.setattr(status, "until_ready", never)
        with pytest.raises(Unavailable, match="not at hand") as refused:
            await up.detached(settings, SUDO)
        assert "earlier" not in refused.value.message

    async def test_says_so_in_the_foreground_as_well(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = Settings(home=tmp_path)
        settings.client_file.write_text("{}")
        with caplog.at_level("INFO", "runtools.up"):
            supervisor = up.Supervisor([], {}, SystemClock())
            await up._announce(settings, Person("root", 0, 0), supervisor)
        assert f"key      {settings.client_file} (readable by root alone)" in caplog.messages
        assert f"warning  {EMULATED}" in caplog.messages


def test_systemd_does_not_start_anew_what_was_told_to_end() -> None:
    told = (ROOT / "docs/operations.md").read_text()
    assert f"RestartPreventExitStatus={running.LEFT}\n" in told


def test_the_end_is_given_as_long_as_all_parts_may_take() -> None:
    taken = sum(part.grace_seconds for part in up._parts(up.Person("root", 0, 0)))
    told = re.findall(r"TimeoutStopSec=(\d+)", (ROOT / "docs/operations.md").read_text())
    assert told == [f"{up.END_SECONDS:.0f}"]
    assert taken < up.END_SECONDS


def test_processes_are_told_settings_and_provider_keys_and_nothing_else(tmp_path: Path) -> None:
    given = {
        "RUNTOOLS_API_PORT": "7711",
        "RUNTOOLS_API_KEY": "rt_live_x",
        "OPENAI_API_KEY": "sk-x",
        "AWS_SECRET_ACCESS_KEY": "y",
    }
    told = up.child_env(Settings(home=tmp_path), given)
    assert (told["RUNTOOLS_API_PORT"], told["OPENAI_API_KEY"]) == ("7711", "sk-x")
    assert not {"RUNTOOLS_API_KEY", "AWS_SECRET_ACCESS_KEY"} & told.keys()


def test_host_and_worker_are_kept_from_keys_and_records() -> None:
    kept = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "RUNTOOLS_MASTER_KEY", "RUNTOOLS_DATABASE_URL"}
    kept |= {"RUNTOOLS_METRICS_TOKEN"}
    untold = {part.name: part.untold for part in up._parts(up.Person("root", 0, 0))}
    assert kept <= untold["host"]
    assert kept <= untold["worker"]
    assert not untold["api"]
