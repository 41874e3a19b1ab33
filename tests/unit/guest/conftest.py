"""A real agent as a process of its own, and a plain way to talk to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runtools
from runtools.guest import procs, protocol
from runtools.guest.protocol import BYTES, END, HEADER, JSON

TOKEN = "the token"
SOURCE = Path(runtools.__file__).parent.parent


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


class Talk:
    """One connection, spoken by hand."""

    def __init__(self, path: Path, token: str = TOKEN, versions: object = (1,)) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        try:
            self.sock.connect(str(path))
        except OSError:
            self.sock.close()
            raise
        self.file = self.sock.makefile("rb")
        self.hello = self.ask({"versions": versions, "token": token})

    def frame(self) -> tuple[int, bytes]:
        head = self.file.read(HEADER.size)
        if len(head) < HEADER.size:
            raise ConnectionError("closed")
        length, kind = HEADER.unpack(head)
        payload = self.file.read(length)
        if len(payload) < length:  # the agent was killed in it
            raise ConnectionError("closed")
        return kind, payload

    def send(self, request: object) -> None:
        self.sock.sendall(protocol.frame(JSON, json.dumps(request).encode()))

    def answer(self) -> Any:
        kind, payload = self.frame()
        assert kind == JSON
        return json.loads(payload)

    def ask(self, request: object) -> Any:
        self.send(request)
        return self.answer()

    def do(self, name: str, **fields: object) -> Any:
        """A good answer."""
        said = self.ask({"do": name, **fields})
        assert "ok" in said, said
        return said["ok"]

    def fail(self, name: str, **fields: object) -> str:
        """The code of a bad one."""
        said = self.ask({"do": name, **fields})
        assert "error" in said, said
        return str(said["error"]["code"])

    def body(self) -> bytes:
        data = b""
        while True:
            kind, payload = self.frame()
            if kind == END:
                assert payload == b"", payload
                return data
            assert kind == BYTES
            data += payload

    def send_body(self, data: bytes) -> None:
        for piece in protocol.body_frames(data):
            self.sock.sendall(piece)

    def exec(self, name: str, command: object, **fields: object) -> Any:
        """A command's end, with what it printed; or its error."""
        stdin = fields.pop("stdin", b"")
        assert isinstance(stdin, bytes)
        self.send(
            {"do": "exec", "id": name, "command": command, "stdin": len(stdin), "cwd": "/"} | fields
        )
        if stdin:
            self.send_body(stdin)
        said = self.answer()
        if "error" in said:
            return said["error"]
        ran, output = said["ok"], self.body()
        assert len(output) == ran["stdout"] + ran["stderr"]
        return ran | {"out": output[: ran["stdout"]], "err": output[ran["stdout"] :]}

    def write(self, name: str, path: str, data: bytes, **fields: object) -> Any:
        said = self.ask({"do": "write", "id": name, "path": path} | fields)
        if "go" not in said:
            return said
        self.send_body(data)
        return self.answer()

    def read(self, path: str, start: int = 0, end: int | None = None) -> tuple[Any, bytes]:
        head = self.do("read", path=path, start=start, end=end)
        return head, self.body()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


class Agent:
    """The process, and connections to it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.root = folder / "root"
        self.state = folder / "state"
        self.socket = folder / "agent.sock"
        self._log = folder / "log"
        self._arguments = arguments
        self._talks: list[Talk] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.limits: Callable[[], None] | None = None
        self.groups: Path | None = None
        for name in ("workspace", "etc", "root"):
            (self.root / name).mkdir(parents=True)
        self.state.mkdir()
        (self.state / "token").write_text(TOKEN)

    def start(self) -> Agent:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    # As a shell does that starts it in the background.
                    *("/bin/sh", "-c", "trap '' INT QUIT; exec \"$@\"", "sh"),
                    *(sys.executable, "-S", "-m", "runtools.guest"),
                    *("--root", str(self.root), "--listen", f"unix:{self.socket}"),
                    *("--token-file", str(self.state / "token"), "--state", str(self.state)),
                    *self._arguments,
                ],
                env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]},
                stdout=log,
                stderr=log,
                preexec_fn=self.limits,  # noqa: PLW1509 - the tests are one thread
            )
        until(self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self._log.read_text()
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        """The hard way, as a crash."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.kill()
        self.socket.unlink(missing_ok=True)
        self.start()

    def talk(self, **fields: Any) -> Talk:
        talk = Talk(self.socket, **fields)
        self._talks.append(talk)
        return talk

    def lives(self) -> list[int]:
        """The pids of its durable processes."""
        folder = self.root / "var/lib/runtools/processes"
        texts = [live.read_bytes() for live in folder.glob("*/live")]
        found = [struct.unpack("<9q", text) for text in texts if text]
        return [live[7] for live in found if live[7] and procs.is_same(live[7], live[8])]

    def stop(self) -> str:
        for talk in self._talks:
            talk.close()
        self.kill()
        for pid in self.lives():  # they outlive the agent
            procs.kill_session(pid)
        return self._log.read_text()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path).start()
    yield made
    log = made.stop()
    assert "Traceback" not in log, log


@pytest.fixture
def talk(agent: Agent) -> Talk:
    made = agent.talk()
    assert "ok" in made.hello
    return made


def _writable_cgroup() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(mount, os.W_OK):
            return Path(mount)
    return None


@pytest.fixture
def group_folder() -> Iterator[Path]:
    """A control group (v2) of the test's own."""
    mount = _writable_cgroup()
    if mount is None:
        pytest.skip("no writable control groups (v2) here")
    folder = mount / f"rt-test-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    yield folder
    (folder / "cgroup.kill").write_text("1")
    until(lambda: "populated 0" in (folder / "cgroup.events").read_text())
    for inner in sorted(folder.rglob("*"), reverse=True):
        if inner.is_dir():
            inner.rmdir()
    folder.rmdir()


@pytest.fixture
def grouped(tmp_path: Path, group_folder: Path) -> Iterator[Agent]:
    """An agent whose commands live in control groups."""
    made = Agent(tmp_path, "--cgroup", str(group_folder)).start()
    made.groups = group_folder
    yield made
    log = made.stop()
    assert "Traceback" not in log, log
