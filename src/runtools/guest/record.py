"""What is known of one durable process, read from its folder; the holder writes it, nobody else must live.

    process.json   what was asked, and when
    lock, live, end, socket, <stream>.<offset>   see `holder`

A process runs as long as its holder does: the lock says so. Where nobody holds the lock and no end was
written, the process is lost: it is gone (or was orphaned), and nobody saw how it ended.

A disk that lost its power, or somebody inside, may have damaged any of it. What can still be read is
told: offsets are then those of the segments, and one whose order is unreadable bears its folder's name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from runtools.guest import spool
from runtools.guest.groups import Group
from runtools.guest.packets import END_BYTES, LIVE, Live
from runtools.guest.spool import Tail

_FACTS: Final = "process.json"
_DAMAGED: Final = "damaged."  # and the name of its folder: the id of one whose order is unreadable
_UNREADABLE: Final = "(what was started is no longer readable)"
_STREAMS: Final = ("output", "stdout", "stderr")
_KINDS: Final[dict[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("id", "key", "cwd", "user", "group"), str),
    "command": (str, list),
    "started": (int, float),
    "terminal": bool,
    "keep": int,
}
_KEEP: Final = 1 << 30  # the most that may have been asked for


@dataclass(frozen=True, slots=True)
class Look:
    """How a process stands. ``end`` is None while it runs; ``lost`` says that there never will be one."""

    live: Live
    end: dict[str, Any] | None
    lost: bool

    @property
    def over(self) -> bool:
        """Whether it runs no more."""
        return self.lost or self.end is not None

    def ends(self, stream: str) -> int:
        """How far a stream has come."""
        return {"output": self.live.output, "stdout": self.live.stdout}.get(
            stream, self.live.stderr
        )


class Record:
    """One process."""

    def __init__(self, folder: str, facts: dict[str, Any]) -> None:
        self.folder = folder
        self.facts = facts
        self.id = str(facts["id"])
        self.group: Group | None = None  # until it was seen to have ended
        self.when_over: Callable[[Record, Look], None] = lambda _, look: None
        self._over: Look | None = None

    @classmethod
    def load(cls, folder: str) -> Record:
        """The one in a folder.

        Raises:
            OSError: there is none.
        """
        try:
            with open(f"{folder}/{_FACTS}") as file:
                return cls(folder, _checked(json.load(file)))
        except (FileNotFoundError, ValueError):
            return cls(folder, _made_up(folder))

    @property
    def damaged(self) -> bool:
        """Whether nobody knows any more what was started."""
        return self.id == damaged_id(self.folder)

    @classmethod
    def make(cls, folder: str, facts: dict[str, Any]) -> tuple[Record, int, socket.socket]:
        """A new one with its lock, locked, and its socket, listening.

        The room for its end and its numbers is taken now, so that a full disk cannot lose them; what is
        in it lies on the disk before it has its name, so that a loss of power leaves all of it or none.

        Raises:
            OSError: there is no room.
        """
        fresh = f"{folder}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        os.mkdir(fresh, 0o700)
        lock, listener = -1, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            _put(f"{fresh}/{_FACTS}", json.dumps(facts).encode())
            _put(f"{fresh}/live", LIVE.pack(*([0] * len(Live._fields))))
            _put(f"{fresh}/end", b" " * END_BYTES)
            lock = os.open(f"{fresh}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with _short(fresh) as short:
                listener.bind(f"{short}/socket")
            listener.listen(128)
            _sync(fresh)
            os.rename(fresh, folder)
        except BaseException:
            listener.close()
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return cls(folder, facts), lock, listener

    def look(self) -> Look:
        """How it stands now. What is over stays as it is, and is seen to before it is told."""
        if self._over is not None:
            return self._over
        look = self._look()
        if look.over:
            self.when_over(self, look)
            self._over = look
        return look

    def live(self) -> Live:
        """The numbers alone."""
        if self._over is not None:
            return self._over.live
        try:
            return self._live()
        except (FileNotFoundError, struct.error):
            output, stdout, stderr = (spool.end_of(self.folder, self.name(s)) for s in _STREAMS)
            return Live(output, stdout, stderr, 0, 0, 0, 0, 0, 0)

    def connect(self) -> socket.socket:
        """Speak to the holder.

        Raises:
            OSError: there is none any more.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short(self.folder) as short:
                sock.connect(f"{short}/socket")
        except BaseException:
            sock.close()
            raise
        return sock

    def name(self, stream: str) -> str:
        """Under which name a stream is kept: a terminal has only one."""
        return "output" if self.facts["terminal"] and stream == "stdout" else stream

    def tail(self, stream: str) -> Tail:
        """A reader of a stream."""
        return Tail(self.folder, self.name(stream))

    def kept(self) -> int:
        """How many bytes of disk its output takes, roughly."""
        live = self.live()
        return sum(min(end, self.facts["keep"]) for end in (live.output, live.stdout, live.stderr))

    def shape(self) -> dict[str, Any]:
        """As the host is told."""
        look = self.look()
        live, end = look.live, look.end or {}
        running = not look.over
        return {
            "id": self.id,
            "command": self.facts["command"],
            "cwd": self.facts["cwd"],
            "user": self.facts["user"],
            "started": self.facts["started"],
            "pid": live.pid or None if running else None,
            "rows": live.rows,
            "columns": live.columns,
            "state": "lost" if look.lost else "running" if running else "ended",
            "exit_code": end.get("exit_code"),
            "signal": end.get("signal"),
            "ended": end.get("at"),
            "input_open": running and bool(live.input_open),
            **{
                stream: [self._kept_from(stream, look.ends(stream)), look.ends(stream)]
                for stream in ("output", "stdout", "stderr")
            },
        }

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def was_begun(self) -> bool:
        """Whether it may ever have run, as far as can be seen."""
        look = self.look()
        if "problem" in (look.end or {}):
            return False
        if self.facts.get("boot") not in {None, boot_id()}:
            return True  # what the holder wrote may have gone with the power
        return bool(look.live.pid) or self.damaged or self._has_output()

    def _has_output(self) -> bool:
        return any(spool.segments(self.folder, each) for each in _STREAMS)

    def _live(self) -> Live:
        fd = os.open(f"{self.folder}/live", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Live(*LIVE.unpack(os.pread(fd, LIVE.size, 0)))
        finally:
            os.close(fd)

    def _kept_from(self, stream: str, end: int) -> int:
        return min(spool.kept_from(self.folder, self.name(stream), end), end)

    def _look(self) -> Look:
        end = self._end()
        if end is not None:  # its numbers are final
            return Look(self.live(), end, lost=False)
        alive = self._is_held()
        live = self.live()
        if alive:
            return Look(live, None, lost=False)
        end = self._end()  # written since we looked for it first
        return Look(live, end, lost=end is None)

    def _end(self) -> dict[str, Any] | None:
        try:
            with open(f"{self.folder}/end", "rb") as file:
                end = json.loads(file.read(END_BYTES).strip())
        except (FileNotFoundError, ValueError):  # not written, or in this moment
            return None
        return end if isinstance(end, dict) else None

    def _is_held(self) -> bool:
        try:
            fd = os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


def _put(place: str, data: bytes) -> None:
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(28, "no space left on the disk")
    finally:
        os.close(fd)


def _sync(folder: str) -> None:
    """Have a folder and the files in it on the disk."""
    for name in (_FACTS, "live", "end", "."):
        fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def damaged_id(folder: str) -> str:
    """Under which id the process of a folder is told of, if its order is unreadable."""
    return _DAMAGED + os.path.basename(folder)


def boot_id() -> str:
    """Which boot of the machine this is."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _checked(facts: Any) -> dict[str, Any]:
    """What was written of a process.

    Raises:
        ValueError: it is not what this module writes.
    """
    if not isinstance(facts, dict) or not all(
        isinstance(facts.get(name), kind) for name, kind in _KINDS.items()
    ):
        raise ValueError("no facts of a process")
    return facts


def _made_up(folder: str) -> dict[str, Any]:
    """In place of what was written of a process."""
    return {
        "id": damaged_id(folder),
        "key": "",
        "command": _UNREADABLE,
        "cwd": "/",
        "user": "root",
        "started": os.stat(folder).st_mtime,
        "terminal": False,
        "keep": _KEEP,
        "group": "",
    }


@contextlib.contextmanager
def _short(folder: str) -> Any:
    """The folder under a short name: a socket's path may have 107 bytes only."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
