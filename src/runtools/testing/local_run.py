"""Starting and ending what a local machine consists of: holder, bubblewrap, agent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

from runtools.platform.core.ports.driver import VmmFailed
from runtools.platform.kit import files, process
from runtools.testing import local_disk as disk
from runtools.testing import local_holder
from runtools.testing.local_place import Place

PYTHON = "/usr/bin/python3"
_START_SECONDS = 30.0
_END_SECONDS = 10.0
_LOOK_SECONDS = 0.01
_RUN = "run/runtools"
_AGENT = "/.agent"
# Starts the agent again when it dies, as the init system of a real machine does. When this shell is
# killed, the machine ends. No file inside grows beyond the disk's size (in KB), which is all that stands
# between a command that fills its disk and the host's.
_INIT = r"""
eval "printf 'started\n' >&$STARTED_FD; exec $STARTED_FD>&-"
unset STARTED_FD
ulimit -f "$1"; shift
while :; do "$@"; echo "agent ended with $?"; sleep 0.05; done
"""


async def start(place: Place, base: Path, overlay: Path, token: str) -> None:
    """Unpack the disk and start the agent on it. Nothing of the machine may be running.

    Raises:
        VmmFailed: it did not come up; nothing of it is left running.
    """
    if not overlay.exists():
        raise VmmFailed(f"there is no disk {overlay}")
    place.folder.mkdir(parents=True, exist_ok=True)
    lock = place.take_lock()
    if lock is None:
        raise VmmFailed(f"{place.folder} is being started by somebody else")
    try:
        place.clear()
        await disk.unpack(overlay, place.tree)
        run = place.tree / _RUN
        files.write_atomic(run / "token", token.encode(), durable=False)
        _orders(place, base, overlay.stat().st_size // 1024)
        started = await _hold(place, lock)
    finally:
        os.close(lock)
    if not started:
        await end(place)
        await disk.remove(place.tree)
        said = place.exit()
        raise VmmFailed(" ".join([*said.messages, *said.console_tail]) or "it did not come up")


async def end(place: Place) -> None:
    """Kill whatever runs, frozen or not, and wait until nothing of it is left."""
    await introduced(place)
    first, holder = place.first(), place.holder()
    if first is not None:
        _kill(first)
        await process.wait_pid_gone(first)
    if holder is not None:
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait_pid_gone(holder)
        except TimeoutError:
            _kill(holder)
            await process.wait_pid_gone(holder)
    place.clear_still()


async def gone(place: Place) -> None:
    """Wait until nothing of the machine runs, and its end has been written down."""
    await introduced(place)
    for pid in (place.first(), place.holder()):
        if pid is not None:
            await process.wait_pid_gone(pid)


async def put_away(place: Place, overlay: Path) -> None:
    """Pack what a machine that has ended left in its tree."""
    if place.tree.exists() and place.first() is None:
        if overlay.exists():
            await disk.pack(place.tree, overlay)
        await disk.remove(place.tree)


async def introduced(place: Place) -> None:
    """Wait until a holder that was started just before a crash has said who it is."""
    while place.folder.exists() and not place.is_known():
        lock = place.take_lock()
        if lock is not None:
            os.close(lock)
            return
        await asyncio.sleep(_LOOK_SECONDS)


def token(place: Place) -> str:
    """What the agent asks of its callers now: a renewal may have changed it."""
    try:
        with (place.tree / _RUN / "token").open() as file:
            return file.read(4096)
    except FileNotFoundError as exc:
        raise VmmFailed("the agent's token was removed inside") from exc


def connect(place: Place) -> socket.socket:
    """A connection to the agent.

    Raises:
        ConnectionRefusedError: it does not listen (yet).
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        folder = os.open(place.tree / _RUN, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # by the folder's descriptor, for a socket's path may have 107 bytes only
            sock.connect(f"/proc/self/fd/{folder}/agent.sock")
        finally:
            os.close(folder)
    except OSError as exc:
        sock.close()
        raise ConnectionRefusedError(f"no agent listens in {place.folder}: {exc}") from exc
    return sock


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def _hold(place: Place, lock: int) -> bool:
    """Start the holder; whether the sandbox came up. The lock is the holder's from then on."""
    ready, ready_write = os.pipe()
    try:
        script = str(Path(local_holder.__file__))
        words = [PYTHON, "-I", "-S", script, str(place.folder), str(lock), str(ready_write)]
        try:
            await process.start_detached(words, output=place.messages, pass_fds=(lock, ready_write))
        finally:
            os.close(ready_write)
        async with asyncio.timeout(_START_SECONDS):
            await _readable(ready)
        return bool(os.read(ready, 16))
    except TimeoutError:
        return False
    finally:
        os.close(ready)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(fd, told.set)
    try:
        await told.wait()
    finally:
        loop.remove_reader(fd)


def _orders(place: Place, base: Path, disk_kb: int) -> None:
    """Write down what the holder is to run.

    The sandbox has the tree as /, the host's programs read-only over it, and nothing else of the host.
    """
    (place.folder / "init.sh").write_text(_INIT)
    words = ["--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL"]
    words += ["--hostname", "sandbox", "--die-with-parent", "--new-session"]
    words += ["--bind", str(place.tree), "/", "--proc", "/proc", "--dev", "/dev"]
    words += ["--symlink", "/proc/1/fd/1", "/dev/console"]
    for name in disk.SYSTEM:
        if (Path("/") / name).is_dir() and not (Path("/") / name).is_symlink():
            words += ["--ro-bind", f"/{name}", f"/{name}"]
    for name in ("alternatives", "ssl", "ld.so.cache"):
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--ro-bind", str(base), _AGENT, "--ro-bind", str(place.folder / "init.sh"), "/.init"]
    words += ["--chdir", "/workspace"]
    for name, value in {**process.PLAIN_ENV, "HOME": "/root", "PYTHONPATH": _AGENT}.items():
        words += ["--setenv", name, value]
    command = ["/bin/bash", "/.init", str(disk_kb), PYTHON, "-S", "-m", "runtools.local_agent"]
    command += ["--listen", f"unix:/{_RUN}/agent.sock", "--token-file", f"/{_RUN}/token"]
    command += ["--state", f"/{_RUN}", "--cgroup", "none"]
    text = json.dumps({"options": words, "command": command})
    (place.folder / "run.json").write_text(text)
