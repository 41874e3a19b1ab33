"""Running programs: argument lists only, never a shell string. No other module starts processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
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
    words = [str(word) for word in argv]
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(PLAIN_ENV if env is None else env),
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    code = process.returncode
    assert code is not None  # noqa: S101 - communicate() returned, so it has ended
    if check and code != 0:
        raise CommandFailed(words, code, err or out)
    return Completed(code, out, err)


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

    A cancelled call ends the program and everything it started. Lines are cut at 4096 characters.

    Raises:
        CommandFailed: it ended with another code than 0, and ``check`` is set.
        FileNotFoundError: there is no such program.
    """
    words = [str(word) for word in argv]
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(PLAIN_ENV if env is None else env),
        cwd=cwd,
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=20)
    try:
        assert process.stdout is not None  # noqa: S101 - asked for above
        rest = b""
        while chunk := await process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[:4096]
            for line in lines:
                tail.append(line[:4096].decode(errors="replace").rstrip("\r"))
                on_line(tail[-1])
        if rest:
            tail.append(rest.decode(errors="replace"))
            on_line(tail[-1])
        code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if check and code != 0:
        raise CommandFailed(words, code, "\n".join(tail).encode())
    return code


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
