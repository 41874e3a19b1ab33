"""The holder of one local machine: starts its sandbox, outlives the platform, writes how it ended.

Run as a script by the system's Python, standard library only:

    local_holder.py FOLDER LOCK_FD READY_FD

What to run stands in ``FOLDER/run.json``: bubblewrap's options, and the command inside.
``LOCK_FD`` is a locked file handed down by the driver: while it is locked, the machine lives.
``READY_FD`` is told ``ok`` once the sandbox runs, and closed without a word when it did not come up.
In ``FOLDER`` appear ``holder.json`` (who we are), ``console.log`` and at the end ``exit.json``.
When the folder is removed, the sandbox goes with it, because nobody could ever find it again; but only
after a while, as a real one would not go at all: a test that looks finds what an act has left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# What the sandbox's first command writes to the descriptor STARTED_FD once everything is mounted.
STARTED = b"started\n"
_LOOK_SECONDS = 0.5
_LEFT_SECONDS = 12.0


def started_at(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None when it is gone or only a zombie.

    Together with the pid it names one process for ever: pids are used again, these pairs are not.
    """
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if words[0] in {b"Z", b"X"} else int(words[19])


def _stands_still(first: int) -> bool:
    """Whether every process below the first is stopped, as a suspend leaves them."""
    states = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                if int(words[1]) == first:
                    states.append(words[0])
    return all(state in {b"T", b"Z", b"X"} for state in states)


def _write(path: Path, value: Mapping[str, int | None]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(value))
    fresh.replace(path)


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


def _ending(status: int) -> dict[str, int | None]:
    """Bubblewrap says 128 + n when the sandbox was ended by signal n."""
    if status < 0:
        return {"code": None, "signal": -status}
    if status > 128:
        return {"code": None, "signal": status - 128}
    return {"code": status, "signal": None}


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], int, int]:
    """The sandbox, and the read ends of what bubblewrap and the sandbox itself will say."""
    run = json.loads((folder / "run.json").read_text())
    options = os.memfd_create("options")
    os.write(options, "".join(f"{word}\0" for word in run["options"]).encode())
    os.lseek(options, 0, os.SEEK_SET)
    info, info_write = os.pipe()
    started, started_write = os.pipe()
    told = ["--info-fd", str(info_write), "--setenv", "STARTED_FD", str(started_write)]
    with (folder / "console.log").open("ab") as out:
        sandbox = subprocess.Popen(
            ["bwrap", *told, "--args", str(options), "--", *run["command"]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(info_write, started_write, options),
        )
    for fd in (info_write, started_write, options):
        os.close(fd)
    return sandbox, info, started


def _wait(sandbox: subprocess.Popen[bytes], folder: Path, first: int | None) -> int:
    """Wait for the sandbox's end; bring it about when the folder's lock file is removed.

    Returns how bubblewrap ended.
    """
    ended = os.pidfd_open(sandbox.pid)
    while not select.select([ended], [], [], _LOOK_SECONDS)[0]:
        if first is not None and not (folder / "lock").exists():
            # One that was suspended would be nothing but the files that are gone.
            if not _stands_still(first):
                select.select([ended], [], [], _LEFT_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
            break
    return sandbox.wait()


def main(argv: list[str]) -> int:
    """Hold one sandbox from its start to its end."""
    folder, ready = Path(argv[0]), int(argv[2])
    os.chdir("/")
    sandbox, info, started = _start(folder)
    words = _read_all(info)
    first = int(json.loads(words)["child-pid"]) if words else None
    if first is not None:
        me = os.getpid()
        _write(
            folder / "holder.json",
            {
                "holder": me,
                "holder_start": started_at(me),
                "first": first,
                "first_start": started_at(first),
            },
        )
    if _read_all(started) == STARTED:
        with contextlib.suppress(BrokenPipeError):  # the platform died while it waited for us
            os.write(ready, b"ok")
    os.close(ready)
    status = _wait(sandbox, folder, first)
    if (folder / "lock").exists():  # else the folder is being removed: put nothing into it
        _write(folder / "exit.json", _ending(status))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
