"""The bytes of one file: ranges out, a stream in."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, Final

from runtools.guest import protocol, unsized
from runtools.guest.conn import Conn, Gone, ok, write_all
from runtools.guest.files import entry, temporary
from runtools.guest.paths import Root
from runtools.guest.problems import Problem, invalid, of_errno
from runtools.guest.protocol import BYTES, END, HEADER

_PIECE: Final = 1 << 20


class Reader:
    """A range of an open file, ready to be sent."""

    def __init__(self, root: Root, path: object, start: int, end: int | None) -> None:
        self._path = str(path)
        place = root.path(path)
        self._early: bytes | None = None
        try:
            self._fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise of_errno(exc, self._path) from exc
        try:
            found = os.fstat(self._fd)
            self._check(found)
            self._early = unsized.content(self._fd, self._path)
            size = found.st_size if self._early is None else len(self._early)
            self.start = min(start, size)
            self.end = size if end is None else max(min(end, size), self.start)
            seen = {**entry(root, place, found), "size": size}
            self.head = {"entry": seen, "start": self.start, "end": self.end}
        except OSError as exc:
            os.close(self._fd)
            raise of_errno(exc, self._path) from exc
        except BaseException:
            os.close(self._fd)
            raise

    def send(self, conn: Conn) -> None:
        """Send the head and then the bytes; what goes wrong on the way ends them with an error."""
        try:
            conn.send(ok(self.head))
            if self._early is not None:
                early = self._early[self.start : self.end]
                conn.send(b"".join(protocol.body_frames(early)))
                return
            at = self.start
            while at < self.end:
                count = min(self.end - at, protocol.CHUNK)
                if not self._send_piece(conn, at, count):
                    return
                at += count
            conn.send(protocol.frame(END))
        finally:
            os.close(self._fd)

    def _send_piece(self, conn: Conn, at: int, count: int) -> bool:
        try:
            data = os.pread(self._fd, count, at)
        except OSError as exc:
            conn.send(protocol.frame(END, of_errno(exc, self._path).to_json()))
            return False
        if len(data) < count:
            problem = Problem("file_error", f"{self._path} became shorter while it was read")
            conn.send(protocol.frame(END, problem.to_json()))
            return False
        conn.send(HEADER.pack(count, BYTES) + data)
        return True

    def _check(self, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            raise Problem("file_is_directory", f"{self._path}: it is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise Problem("file_error", f"{self._path} is no regular file")


class Writer:
    """One write: opened (errors that can be known are known then), fed, and finished or undone."""

    def __init__(self, root: Root, path: object, mode: int | None, how: str) -> None:
        if how not in {"replace", "append"}:
            raise invalid("how must be replace or append")
        self._root = root
        self._path = str(path)
        self._mode = mode
        self._append = how == "append"
        # A symlink stays one: what it points to is written.
        self.place = os.path.realpath(root.path(path))
        # What is appended is gathered first, too: others may append while it comes.
        self.temporary: str | None = temporary(self.place)
        self._fd = -1

    def open(self) -> None:
        """Make the parents and open what is written to."""
        try:
            self._open()
        except OSError as exc:
            self.undo()
            raise of_errno(exc, self._path) from exc

    def feed(self, conn: Conn) -> None:
        """Write the body that the connection brings.

        Raises:
            Problem: the disk is full, or the like; nothing is changed.
            Gone: the sender broke off; nothing is changed.
        """
        try:
            conn.body_into(self._fd)
        except OSError as exc:
            self.undo()
            raise of_errno(exc, self._path) from exc
        except Gone:
            self.undo()
            raise

    def put(self, data: bytes) -> None:
        """Have just these bytes as the new content.

        Raises:
            OSError: the disk takes no more.
        """
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        write_all(self._fd, data)

    def finish(self) -> dict[str, Any]:
        """Put the new content in place."""
        try:
            assert self.temporary is not None  # noqa: S101 - it is opened
            if self._append:
                self._add_to_the_end()
                os.unlink(self.temporary)
            else:
                if self._mode is not None:
                    os.fchmod(self._fd, self._mode)
                os.rename(self.temporary, self.place)
            self.temporary = None
            return entry(self._root, self.place)
        except OSError as exc:
            self.undo()
            raise of_errno(exc, self._path) from exc
        finally:
            self._close()

    def undo(self) -> None:
        """Leave everything as it was."""
        if self.temporary is not None and self._fd >= 0:
            os.unlink(self.temporary)
            self.temporary = None
        self._close()

    def _open(self) -> None:
        there = self._there()
        os.makedirs(os.path.dirname(self.place), exist_ok=True)
        assert self.temporary is not None  # noqa: S101 - nothing was undone yet
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self.temporary, flags, 0o600 if self._append else 0o644)
        if self._append:
            return
        if there is not None:
            if os.geteuid() == 0:
                os.fchown(self._fd, there.st_uid, there.st_gid)
            os.fchmod(self._fd, stat.S_IMODE(there.st_mode))

    def _add_to_the_end(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        target = os.open(self.place, flags, 0o644)
        try:
            if self._mode is not None:
                os.fchmod(target, self._mode)
            was = os.fstat(target).st_size
            at = 0
            try:
                while data := os.pread(self._fd, _PIECE, at):
                    write_all(target, data)
                    at += len(data)
            except OSError:
                # A full disk: what was added is taken back, unless others have added to it.
                end = os.fstat(target).st_size
                if was < end <= was + at + _PIECE:
                    os.ftruncate(target, was)
                raise
        finally:
            os.close(target)

    def _there(self) -> os.stat_result | None:
        try:
            found = os.stat(self.place)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, "it is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if not os.access(self.place, os.W_OK):
            raise OSError(errno.EACCES, "it is read-only")
        return found

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
