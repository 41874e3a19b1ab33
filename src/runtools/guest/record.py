"""What is known of one durable process, read from its folder; the holder writes it, nobody else must live.

    process.json   what was asked, and when
    lock, live, end, socket, <stream>.<offset>   see `holder`

A process runs as long as its holder does: the lock says so. Where nobody holds the lock and no end was
written, the process is lost: it is gone (or was orphaned), and nobody saw how it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
from dataclasses import dataclass
from typing import Any, Final

from runtools.guest import spool
from runtools.guest.groups import Group
from runtools.guest.holder import END_BYTES, LIVE, Live
from runtools.guest.spool import Tail

_FACTS: Final = "process.json"


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
        self._over: Look | None = None

    @classmethod
    def load(cls, folder: str) -> Record | None:
        """The one in a folder; None where none was ever whole."""
        try:
            with open(f"{folder}/{_FACTS}") as file:
                return cls(folder, json.load(file))
        except (OSError, ValueError):
            return None

    @classmethod
    def make(cls, folder: str, facts: dict[str, Any]) -> tuple[Record, int, socket.socket]:
        """A new one with its lock, locked, and its socket, listening.

        The room for its end and its numbers is taken now, so that a full disk cannot lose them.

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
            os.rename(fresh, folder)
        except BaseException:
            listener.close()
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return cls(folder, facts), lock, listener

    def look(self) -> Look:
        """How it stands now. What is over stays as it is, and is read once."""
        if self._over is not None:
            return self._over
        look = self._look()
        if look.over:
            self._over = look
        return look

    def live(self) -> Live:
        """The numbers alone."""
        if self._over is not None:
            return self._over.live
        fd = os.open(f"{self.folder}/live", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Live(*LIVE.unpack(os.pread(fd, LIVE.size, 0)))
        finally:
            os.close(fd)

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
        with open(f"{self.folder}/end", "rb") as file:
            text = file.read(END_BYTES).strip()
        try:
            end = json.loads(text)
        except ValueError:  # not written, or in this moment
            return None
        return end if isinstance(end, dict) else None

    def _is_held(self) -> bool:
        fd = os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CLOEXEC)
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


@contextlib.contextmanager
def _short(folder: str) -> Any:
    """The folder under a short name: a socket's path may have 107 bytes only."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
