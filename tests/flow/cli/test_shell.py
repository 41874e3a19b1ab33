"""`runtools sandbox shell` in a real pseudo-terminal, over a connection that a test can cut."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.flow.cli.conftest import Platform, nobody_knows, wakes

from runtools import RunTools
from runtools.cli.sandbox.terminal import Escape

Cli = Any  # the fixture of conftest.py
PROGRAM = "from runtools.cli import main; import sys; sys.exit(main())"
SECONDS = 40


class Wire:
    """Passes TCP on to the platform, and breaks off when it is told to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, target: Any, *args: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            self._open += [near, far]
            for pair in ((near, far), (far, near)):
                self._begin(self._pass, *pair)

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        source.close()

    def cut(self) -> int:
        """Break every connection off; how many there were."""
        cut = [one for one in self._open if one.fileno() >= 0]
        self._open.clear()
        for one in cut:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        return len(cut)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)


class Seat:
    """A person at a terminal."""

    def __init__(self, cli: Cli, url: str, *argv: str) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "sandbox", "shell", *argv],
            env=cli.env | {"RUNTOOLS_API_URL": url, "TERM": "xterm"},
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def keys(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> str:
        """What was shown so far, when it has the pattern; it is then forgotten."""
        until = time.monotonic() + SECONDS
        while not (found := re.search(pattern.encode(), self.seen)):
            left = until - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536)
        text = self.seen[: found.end()].decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return text

    def ends(self) -> int:
        """Its exit code; the terminal must be as it was."""
        until = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < until, f"it does not end: {self.seen!r}"
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class Room:
    """Makes seats, all in one sandbox."""

    def __init__(self, cli: Cli, sandbox: str, wire: Wire) -> None:
        self._cli, self.sandbox, self.wire = cli, sandbox, wire
        self.seats: list[Seat] = []

    def sit(self, *argv: str) -> Seat:
        self.seats.append(Seat(self._cli, self.wire.url, self.sandbox, *argv))
        return self.seats[-1]

    def shell(self) -> Seat:
        seat = self.sit("--command", "PS1='rea''dy>' exec bash --norc -i")
        seat.until("ready>")
        return seat


@pytest.fixture
def room(cli: Cli, sandbox: str) -> Iterator[Room]:
    wire = Wire(cli.env["RUNTOOLS_API_URL"])
    made = Room(cli, sandbox, wire)
    yield made
    for seat in made.seats:
        seat.close()
    wire.close()


class TestShell:
    def test_keys_go_in_and_the_exit_code_comes_out(self, room: Room) -> None:
        seat = room.shell()
        seat.keys("echo $((6*7)) $TERM; stty size; tty -s && echo 'a t''ty'\r")
        shown = seat.until("a tty")
        assert "42 xterm" in shown
        assert "30 100" in shown
        seat.until("ready>")
        seat.keys("echo b''egun; sleep 600\r")
        seat.until("begun")
        seat.keys("\x03")  # goes to what runs inside
        seat.until("ready>")
        seat.keys("exit 7\r")
        assert seat.ends() == 7

    def test_a_signal_that_killed_it(self, room: Room) -> None:
        assert room.sit("-c", "kill -9 $$").ends() == 137

    def test_the_size_goes_on(self, room: Room) -> None:
        seat = room.shell()
        seat.resize(11, 44)
        seat.process.send_signal(signal.SIGWINCH)  # the kernel does so for its controlling terminal
        seat.keys("until [ \"$(stty size)\" = '11 44' ]; do sleep 0.05; done; echo fit''s\r")
        seat.until("fits")

    def test_a_broken_connection_loses_and_doubles_nothing(self, room: Room) -> None:
        line = "for n in $(seq 300); do echo line $n; sleep 0.01; done; cat"
        seat = room.sit("-c", f"stty -echo; echo ok; {line}")
        seat.until("ok\r\n")
        for mark in (50, 120, 200):
            shown = seat.until(f"line {mark}\r\n")
            assert "runtools:" not in shown
            assert room.wire.cut() > 0
            seat.keys(f"typed {mark}\r")
            first = {50: 1, 120: 51, 200: 121}[mark]
            wanted = "".join(f"line {n}\r\n" for n in range(first, mark + 1))
            assert shown == wanted
        assert seat.until("line 300\r\n") == "".join(f"line {n}\r\n" for n in range(201, 301))
        assert seat.until("typed 200\r\n") == "typed 50\r\ntyped 120\r\ntyped 200\r\n"

    def test_a_long_paste_arrives_whole(self, room: Room) -> None:
        seat = room.sit("-c", "stty raw -echo; echo ok; head -c 200000 | sha256sum")
        seat.until("ok")
        data = ("x" * 99 + "\n") * 2000
        threading.Thread(target=seat.keys, args=[data], daemon=True).start()
        seat.until(hashlib.sha256(data.encode()).hexdigest())

    def test_leave_and_come_back(self, room: Room, rt: RunTools) -> None:
        seat = room.shell()
        seat.keys("echo before; name=kept\r~.")
        assert seat.ends() == 0
        told = re.search(rb"shell \S+ --attach (prc_\w+)", seat.seen)
        assert told is not None, seat.seen
        name = told[1].decode()
        assert rt.sandboxes.get(room.sandbox).processes.get(name).state == "running"
        again = room.sit("--attach", name)
        again.until("before")
        again.keys("echo $name ag''ain\r")
        again.until("kept again")
        again.keys("exit\r")
        assert again.ends() == 0

    def test_to_come_back_wakes_it_also_where_nobody_knows_how_it_stands(
        self, room: Room, rt: RunTools, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seat = room.shell()
        seat.keys("\r~.")
        assert seat.ends() == 0
        [left] = rt.sandboxes.get(room.sandbox).processes.list()
        rt.sandboxes.get(room.sandbox).pause()
        nobody_knows(platform.world.host, monkeypatch)
        again = room.sit("--attach", left.id)
        again.until("ready>")
        assert wakes(rt, room.sandbox)
        again.keys("exit 3\r")
        assert again.ends() == 3

    def test_it_wakes_with_its_sandbox(self, room: Room, rt: RunTools) -> None:
        seat = room.shell()
        rt.sandboxes.get(room.sandbox).pause()
        seat.keys("echo aw''ake\r")
        seat.until("awake")


class TestEnds:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_gives_the_terminal_back(self, room: Room, number: int) -> None:
        seat = room.shell()
        seat.process.send_signal(number)
        assert seat.ends() == 128 + number

    def test_so_does_the_end_of_the_sandbox(self, room: Room, rt: RunTools) -> None:
        seat = room.shell()
        rt.sandboxes.get(room.sandbox).destroy()
        assert seat.ends() in (125, 137)  # the platform says how it ended, or that all has ended

    def test_one_that_is_not_there(self, room: Room) -> None:
        seat = room.sit("--attach", "prc_none")
        assert seat.ends() == 125
        assert b"prc_none" in seat.seen

    def test_one_without_a_terminal(self, room: Room, rt: RunTools) -> None:
        plain = rt.sandboxes.get(room.sandbox).processes.start(["sleep", "600"])
        seat = room.sit("--attach", plain.id)
        assert seat.ends() == 125
        assert b"has no terminal" in seat.seen

    def test_nobody_sits_there(self, cli: Cli, sandbox: str) -> None:
        done = cli("sandbox", "shell", sandbox)
        assert done.code == 125
        assert "exec" in done.err


class TestEscape:
    @pytest.mark.parametrize(
        ("typed", "passed", "left"),
        [
            (["~."], b"", True),
            (["ls\r~.x"], b"ls\r", True),
            (["ls\r", "~", "."], b"ls\r", True),
            (["a~."], b"a~.", False),
            (["\r~~."], b"\r~.", False),
            (["\r~a~."], b"\r~a~.", False),
            (["\n~\r~."], b"\n~\r", True),
        ],
    )
    def test_it(self, typed: list[str], passed: bytes, left: bool) -> None:
        escape = Escape()
        assert b"".join(escape.feed(part.encode()) for part in typed) == passed
        assert escape.detached is left
