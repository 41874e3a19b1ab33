"""Running programs: argument lists only, never a shell string. No other module starts processes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtools.platform.kit.spent import in_spent_thread
from runtools.platform.kit.unbroken import to_its_end

# What a child of ours is given to know; nothing of the platform's own environment goes to it.
PLAIN_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
}

# Of what a program prints so many bytes are taken at once, and as many lines at most; then others have
# their turn, for so many times as long as that took.
_PIECE = 512
_GIVEN_WAY = 3


class CommandFailed(Exception):
    """A program ended with an error; the message quotes the end of what it printed.

    Attributes:
        code: what it ended with.
        output: what it printed, or the end of that.
    """

    def __init__(self, argv: Sequence[str], code: int, output: bytes) -> None:
        tail = output.decode(errors="replace").strip()[-2000:]
        super().__init__(f"{argv[0]} ended with {code}: {tail}" if tail else f"{argv[0]}: {code}")
        self.code = code
        self.output = output


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = 60.0,
    check: bool = True,
) -> Completed:
    """Run a program to its end.

    Raises:
        CommandFailed: it ended with another code than 0, and ``check`` is set.
        TimeoutError: it did not end in time; it was killed.
        FileNotFoundError: there is no such program.
    """
    words, loop = [str(word) for word in argv], asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: _Ends(loop),
        *words,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(PLAIN_ENV if env is None else env),
        cwd=cwd,
    )
    process = asyncio.subprocess.Process(transport, protocol, loop)
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait({protocol.ended})
        transport.close()
    code = process.returncode
    assert code is not None  # noqa: S101 - communicate() returned, so it has ended
    if check and code != 0:
        raise CommandFailed(words, code, err or out)
    return Completed(code, out, err)


class _Ends(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells when a program has ended; `Process.wait` does when its pipes have, too.

    One that is full and not read does not end, nor one that something else holds open.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=1 << 16, loop=loop)
        self.ended: asyncio.Future[None] = loop.create_future()

    def process_exited(self) -> None:
        """Asyncio says so."""
        super().process_exited()
        self.ended.set_result(None)


def output(argv: Sequence[str], *, timeout: float) -> bytes:
    """What a program prints. It blocks: for a thread, or for a start.

    Raises:
        CommandFailed: it ended with another code than 0; what it printed is not quoted.
        TimeoutError: it did not end in time; it was killed.
        OSError: it cannot be started.
    """
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(PLAIN_ENV),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{argv[0]} did not end within {timeout:g} s") from None
    if done.returncode != 0:
        raise CommandFailed(argv, done.returncode, b"")
    return done.stdout


async def start_child(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """Start a program that shares our output and is ours to wait for."""
    return await asyncio.create_subprocess_exec(
        *[str(word) for word in argv],
        stdin=asyncio.subprocess.DEVNULL,
        env=dict(PLAIN_ENV if env is None else env),
        pass_fds=pass_fds,
    )


async def stream(
    argv: Sequence[str | Path],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> int:
    """Run a program to its end, handing over each line of both its streams as it comes.

    Lines are cut at 4096 characters. One that prints without end takes a quarter of our time at most, and
    waits otherwise. A cancelled call ends the program and its process group. What has left that group is
    not waited for, however the program ends, and what it says after the program's end is not read.

    Raises:
        CommandFailed: it ended with another code than 0, and ``check`` is set.
        FileNotFoundError: there is no such program.
    """
    words = [str(word) for word in argv]
    # A pipe of our own: asyncio waits for the end of its pipes before it tells that a program has ended.
    reading, writing = os.pipe()
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(PLAIN_ENV if env is None else env),
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            os.close(writing)
        said = _Lines(on_line)
        ending = asyncio.create_task(process.wait())
        try:
            await _listen(reading, ending, said)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            await asyncio.wait({ending})
    finally:
        os.close(reading)
    said.end()
    code = ending.result()
    if check and code != 0:
        raise CommandFailed(words, code, "\n".join(said.tail).encode())
    return code


class _Lines:
    """Makes lines of what a program prints, and keeps the last of them in ``tail``."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self.tail: deque[str] = deque(maxlen=20)
        self._on_line = on_line
        self._rest = b""

    def add(self, piece: bytes) -> None:
        """What comes next."""
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[:4096]
        for line in lines:
            self._say(line[:4096].decode(errors="replace").rstrip("\r"))

    def end(self) -> None:
        """Nothing comes any more; a line may have been begun."""
        if self._rest:
            self._say(self._rest.decode(errors="replace"))

    def _say(self, line: str) -> None:
        self.tail.append(line)
        self._on_line(line)


async def _listen(fd: int, ending: asyncio.Task[int], said: _Lines) -> None:
    """Read a program's pipe to the program's end, which need not be the end of the pipe."""
    loop = asyncio.get_running_loop()
    while not ending.done():
        some: asyncio.Future[None] = loop.create_future()
        either: set[asyncio.Future[Any]] = {some, ending}
        loop.add_reader(fd, _settle, some)
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(fd)
        if some.done() and not await _take(fd, _PIECE, said):
            await asyncio.wait({ending})  # it has closed its output, and goes on
    # What it has said is in the pipe now; what is added from here on is another's.
    left = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    while left > 0:
        left -= await _take(fd, min(left, _PIECE), said)


async def _take(fd: int, size: int, said: _Lines) -> int:
    """Hand over a piece of what is in a pipe, and give way; how large it was."""
    clock = asyncio.get_running_loop().time
    began = clock()
    piece = os.read(fd, size)
    said.add(piece)
    await asyncio.sleep(_GIVEN_WAY * (clock() - began))
    return len(piece)


async def start_detached(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: Path,
    pass_fds: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    entering: Callable[[], None] | None = None,
) -> int:
    """Start a program in a session of its own that outlives us; both streams go to ``output``.

    ``stdout``: an open file that is its standard output instead.
    ``entering`` is done first, in the thread that starts the program, which is made for it: where
    that thread goes, and what it gives up, is where the program begins. Whoever is cancelled is so only
    when the thread is done: it was handed numbers of files, which must stay those files until then.

    Returns its pid. It is reaped while our event loop runs; after that, init does. It is no child of
    asyncio, which from Python 3.12 on kills its children when the event loop is closed.
    """
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def start() -> subprocess.Popen[bytes]:
        if entering is not None:
            entering()
        return subprocess.Popen(
            [str(word) for word in argv],
            stdin=stdin,
            stdout=fd if stdout is None else stdout,
            stderr=fd,
            env=dict(PLAIN_ENV if env is None else env),
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )

    try:
        if entering is None:
            starting = asyncio.to_thread(start)
        else:
            starting = in_spent_thread(start, f"starting {argv[0]}")
        return await to_its_end(_reaped(starting))
    finally:
        os.close(fd)


async def _reaped(starting: Coroutine[Any, Any, subprocess.Popen[bytes]]) -> int:
    """Wait for a program's start, and see to it that it is reaped."""
    child = await starting
    pid = child.pid
    child.returncode = 0  # it is ours to reap from here on, and Popen has nothing to warn of
    ended = os.pidfd_open(pid)
    asyncio.get_running_loop().add_reader(ended, _reap, pid, ended)
    return pid


def _reap(pid: int, ended: int) -> None:
    asyncio.get_running_loop().remove_reader(ended)
    os.close(ended)
    os.waitpid(pid, os.WNOHANG)


def kill_if(pid: int, still: Callable[[], bool]) -> None:
    """Kill a process if it is ``still`` the one that is meant, and not another that was given its number.

    It is held fast before that is asked, so what is killed is what was asked about.
    """
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if still():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held, signal.SIGKILL)
    finally:
        os.close(held)


async def wait_pid_gone(pid: int) -> None:
    """Wait until a process, not necessarily a child of ours, has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, gone)
    try:
        await gone
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _settle(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)
