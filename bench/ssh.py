"""The SSH gateway beside OpenSSH alone: files, forwarded bytes and commands, with an sshd of this machine.

The same client and the same sshd, with and without the gateway between them; the gateway is a process of
its own, as it is in the platform. What the host part and a virtual machine cost is in the last rows, which
have no floor.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.section import Bench
from bench.table import Row, Series, at_least_floor_times, at_most_floor_plus, row
from runtools.testing.ssh_world import SANDBOX, free_port

MB = 200
SMALL_MB = 20  # from a machine that may be emulated
COMMANDS = 20


@dataclass(frozen=True)
class Way:
    """A way to an SSH server: directly, or by the gateway."""

    user: str
    port: int
    key: str
    control: str
    host: str = "127.0.0.1"

    def argv(self, program: str, *words: str) -> list[str]:
        """A program of OpenSSH, told where to go."""
        place = ["-p" if program == "ssh" else "-P", str(self.port)]
        options = ["-i", self.key, "-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        return [program, *place, *options, "-o", f"ControlPath={self.control}", *words]

    @property
    def target(self) -> str:
        """Who, and where."""
        return f"{self.user}@{self.host}"


def measure(bench: Bench) -> Iterator[Row]:
    """Both ways in turns, then a sandbox."""
    if os.geteuid() == 0:
        yield from _both(bench)
    yield from _machine(bench)


def _both(bench: Bench) -> Iterator[Row]:
    with _world(bench.work / "ssh") as (ours, floor):
        (bench.work / "big").write_bytes(os.urandom(1024 * 1024) * MB)
        down, down_floor = Series(), Series()
        through, through_floor = Series(), Series()
        for _ in range(bench.rounds):
            for way, files, bytes_ in ((floor, down_floor, through_floor), (ours, down, through)):
                files.values.append(_sftp(way, bench.work / "big"))
                bytes_.values.append(_forwarded(way))
        yield row("SFTP down", down, down_floor, unit="MB/s", wanted=[at_least_floor_times(0.5)])
        yield row(
            "forwarded port",
            through,
            through_floor,
            unit="MB/s",
            wanted=[at_least_floor_times(0.35)],
        )
        command, command_floor = Series(), Series()
        with _open(ours), _open(floor):
            for _ in range(bench.rounds * COMMANDS):
                command_floor.time(lambda: _true(floor))
                command.time(lambda: _true(ours))
        yield row(
            "command on an open connection", command, command_floor, wanted=[at_most_floor_plus(3)]
        )


def _machine(bench: Bench) -> Iterator[Row]:
    """The same into a sandbox: what it adds is the machine's, mostly."""
    folder = bench.work / "machine"
    folder.mkdir()
    key = folder / "id"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(make, check=True)
    with bench.rt.sandboxes.create(idle_timeout_seconds=0) as box:
        access = box.ssh.allow(key.with_suffix(".pub").read_text())
        way = Way(access.user, access.port, str(key), str(folder / "mux"), access.host)
        box.exec(f"head -c {SMALL_MB}M /dev/urandom > /root/big")
        login, down, command = Series(), Series(), Series()
        for _ in range(bench.rounds):
            login.time(lambda: _true(way))
            down.values.append(_sftp(way, Path("/root/big"), SMALL_MB))
        with _open(way):
            for _ in range(bench.rounds):
                command.time(lambda: _true(way))
    yield row("login to a sandbox and a command", login)
    yield row("SFTP down from a sandbox", down, unit="MB/s")
    yield row("command in a sandbox on an open connection", command)


def _sftp(way: Way, file: Path, size: int = MB) -> float:
    began = time.perf_counter()
    subprocess.run(
        way.argv("sftp", "-q", f"{way.target}:{file}", "/dev/null"), check=True, capture_output=True
    )
    return size / (time.perf_counter() - began)


def _forwarded(way: Way) -> float:
    """MB a second out of a port that leads to a sender of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port()
        argv = way.argv(
            "ssh", "-N", "-L", f"{port}:127.0.0.1:{server.getsockname()[1]}", way.target
        )
        with _running(argv):
            while True:
                try:
                    reader = socket.create_connection(("127.0.0.1", port))
                    break
                except OSError:
                    time.sleep(0.01)
            sender, _ = server.accept()
            began = time.perf_counter()
            pushing = subprocess.Popen(
                ["head", "-c", f"{MB}M", "/dev/zero"], stdout=sender.fileno()
            )
            sender.close()
            size = 0
            while piece := reader.recv(1 << 20):
                size += len(piece)
            pushing.wait()
            reader.close()
            assert size == MB << 20
            return MB / (time.perf_counter() - began)


def _true(way: Way) -> None:
    subprocess.run(way.argv("ssh", way.target, "true"), check=True, stdin=subprocess.DEVNULL)


@contextmanager
def _open(way: Way) -> Iterator[None]:
    with _running(way.argv("ssh", "-M", "-N", way.target)):
        while not Path(way.control).exists():
            time.sleep(0.01)
        yield


@contextmanager
def _running(argv: list[str]) -> Iterator[None]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _world(folder: Path) -> Iterator[tuple[Way, Way]]:
    argv = [sys.executable, "-m", "runtools.testing.ssh_world", str(folder)]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        key = said["key"]
        yield (
            Way(SANDBOX, said["gateway"], key, str(folder / "mux-ours")),
            Way("root", said["sshd"], key, str(folder / "mux-floor")),
        )
        assert process.stdin is not None
        process.stdin.close()
