"""SSH into a real sandbox, through all of the platform, with OpenSSH's own programs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.real_platform import Platform, eventually

pytestmark = pytest.mark.vm


class Entry:
    """A Host entry for a sandbox, and OpenSSH's programs told of it."""

    def __init__(self, platform: Platform, sandbox: Sandbox, folder: Path) -> None:
        self.file = folder / f"config-{sandbox.id}"
        done = platform.cli("ssh-config", sandbox.id, "--host", "box")
        self.file.write_bytes(done.stdout)

    def run(self, *words: str, stdin: bytes = b"") -> bytes:
        """A program that must succeed; what it printed."""
        argv = [words[0], "-F", str(self.file), *words[1:]]
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    @contextlib.contextmanager
    def session(
        self, *words: str, stdin: int | IO[bytes] = subprocess.PIPE
    ) -> Iterator[subprocess.Popen[bytes]]:
        """One that goes on."""
        pipe = subprocess.PIPE
        argv = ["ssh", "-F", str(self.file), *words]
        with subprocess.Popen(argv, stdin=stdin, stdout=pipe, stderr=pipe) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture(scope="module")
def sandbox(platform: Platform) -> Iterator[Sandbox]:
    """A sandbox for all tests here."""
    with platform.rt.sandboxes.create(idle_timeout_seconds=0) as made:
        yield made


@pytest.fixture(scope="module")
def entry(
    platform: Platform, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entry]:
    """The way to it, with a home for its key."""
    folder = tmp_path_factory.mktemp("ssh")
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder)
    try:
        yield Entry(platform, sandbox, folder)
    finally:
        if before is None:
            del os.environ["XDG_CONFIG_HOME"]
        else:
            os.environ["XDG_CONFIG_HOME"] = before


def test_a_command_without_any_set_up(platform: Platform, sandbox: Sandbox) -> None:
    done = platform.cli("sandbox", "ssh", sandbox.id, "--", "hostname; exit 7", ok=False)
    assert (done.returncode, done.stdout) == (7, f"{sandbox.id}\n".encode()), done.stderr
    asked = ("audit", "--action", "ssh.login", "--resource", sandbox.id)
    _head, line = platform.cli(*asked).stdout.splitlines()
    assert sandbox.id.encode() in line


def test_files_by_sftp_scp_and_rsync(entry: Entry, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    entry.run("scp", "-q", str(tmp_path / "file"), "box:/workspace/one")
    batch = "rename /workspace/one /workspace/two\n"
    entry.run("sftp", "-q", "-b", "-", "box", stdin=batch.encode())
    entry.run("scp", "-q", "-O", "box:/workspace/two", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    argv = [
        "rsync",
        "-a",
        "-e",
        f"ssh -F {entry.file}",
        str(tmp_path / "file"),
        "box:/workspace/3/",
    ]
    subprocess.run(argv, check=True, timeout=120)
    entry.run("ssh", "box", "cmp /workspace/two /workspace/3/file")


def test_a_port_of_its_loopback(entry: Entry, sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = ["python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"]
    process = sandbox.processes.start(serve)
    try:
        with entry.session("-N", "-L", f"{port}:127.0.0.1:8000", "box"):
            eventually(lambda: b"200 OK" in _get(port))
    finally:
        process.signal("KILL")


def _get(port: int) -> bytes:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
        server.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return server.recv(1000)
    return b""


def test_a_pause_is_woken_by_a_login_and_by_what_is_typed(entry: Entry, sandbox: Sandbox) -> None:
    with entry.session("box", "cat") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"before\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"before\n"
        sandbox.pause()
        process.stdin.write(b"after\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"after\n"
    sandbox.pause()
    assert entry.run("ssh", "box", "echo awake") == b"awake\n"


def test_a_clock_that_jumps_inside_ends_nothing_and_keeps_nobody_out(entry: Entry) -> None:
    with entry.session("box", "cat") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for when in ("2001-01-01", "2060-01-01"):
                entry.run("ssh", "box", f"date -s {when}")
                process.stdin.write(b"still\n")
                process.stdin.flush()
                assert process.stdout.readline() == b"still\n"
        finally:
            entry.run("ssh", "box", f"date -s @{int(time.time())}")


def test_a_host_that_is_killed_and_a_sandbox_that_is_destroyed_are_told(
    platform: Platform, entry: Entry, sandbox: Sandbox, killed: Callable[[str], None]
) -> None:
    """The host dies in the middle of an upload that never ends: it is told, and the sandbox lives on."""
    upload = "exec >&2; head -c 1M >/root/up; echo in; exec cat >/dev/null"
    with (
        Path("/dev/zero").open("rb") as zeros,
        entry.session("box", upload, stdin=zeros) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline() == b"in\n"
        killed("host")
        _, err = process.communicate(timeout=30)
        assert f"the connection into {sandbox.id} broke off" in err.decode()
        assert process.returncode == 255
    assert entry.run("ssh", "box", "wc -c </root/up") == b"1048576\n"
    with entry.session("box", "echo in; exec sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        sandbox.destroy()
        began = time.monotonic()
        _, err = process.communicate(timeout=30)
        assert f"{sandbox.id} has stopped" in err.decode()
        assert time.monotonic() - began < 10
