"""Folders as tar streams: out of the machine, and into a folder of it."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, Any, Final, cast

from runtools.guest import protocol, unsized
from runtools.guest.conn import Conn, ok
from runtools.guest.files import entry, group_name, owner_name, weight
from runtools.guest.paths import Root
from runtools.guest.problems import Problem, of_errno
from runtools.guest.protocol import BYTES, END, HEADER

_BLOCK: Final = 512
_END: Final = bytes(2 * _BLOCK)


class Packer:
    """A file or folder, sent as a tar stream with names relative to its parent.

    Regular files, directories, symlinks and hard links; sockets, pipes and devices are left out.
    """

    def __init__(self, root: Root, path: object) -> None:
        self._root = root
        self._place = root.path(path).rstrip("/") or root.own("/").rstrip("/")
        self._path = str(path)
        self._links: dict[tuple[int, int], str] = {}
        self._conn: Conn | None = None
        self._pending = bytearray()
        try:
            self._first = os.lstat(self._place or "/")
        except OSError as exc:
            raise of_errno(exc, self._path) from exc

    def send(self, conn: Conn) -> None:
        """Send all of it; what cannot be read on the way ends the stream with an error."""
        self._conn = conn
        conn.send(ok({"entry": entry(self._root, self._place or "/", self._first)}))
        try:
            self._add(self._place or "/", os.path.basename(self._place) or ".")
            self._put(_END)
            self._flush()
            conn.send(protocol.frame(END))
        except OSError as exc:
            where = self._root.shown(exc.filename) if exc.filename else self._path
            self._refuse(of_errno(exc, where))
        except Problem as problem:
            self._refuse(problem)

    def _refuse(self, problem: Problem) -> None:
        assert self._conn is not None  # noqa: S101 - set by send(), the only caller's caller
        self._conn.send(protocol.frame(END, problem.to_json()))

    def _add(self, place: str, name: str) -> None:
        """Add it and all below, without recursion: folders can be deeper than Python's stack."""
        levels: list[tuple[Any, str]] = []
        try:
            while True:
                if self._add_one(place, name):
                    levels.append((os.scandir(place), name))
                item = None
                while levels and (item := next(levels[-1][0], None)) is None:
                    levels.pop()  # run out, it has closed itself
                if item is None:
                    return
                place, name = item.path, f"{levels[-1][1]}/{item.name}"
        finally:
            for items, _ in levels:
                items.close()

    def _add_one(self, place: str, name: str) -> bool:
        """Add one entry; whether it is a folder."""
        found = os.lstat(place)
        info = self._info(place, name, found)
        if info is None:
            return False
        if info.type != tarfile.REGTYPE:
            self._put(_header(info))
        else:
            self._add_bytes(place, info)
        return info.isdir()

    def _info(self, place: str, name: str, found: os.stat_result) -> tarfile.TarInfo | None:
        info = tarfile.TarInfo(name)
        info.mode = stat.S_IMODE(found.st_mode)
        info.uid, info.gid = found.st_uid, found.st_gid
        info.uname, info.gname = owner_name(found.st_uid), group_name(found.st_gid)
        info.mtime = found.st_mtime
        if stat.S_ISDIR(found.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(found.st_mode):
            info.type = tarfile.SYMTYPE
            info.linkname = os.readlink(place)
        elif not stat.S_ISREG(found.st_mode):
            return None
        elif found.st_nlink > 1 and (first := self._linked(found, name)) is not None:
            info.type = tarfile.LNKTYPE
            info.linkname = first
        return info

    def _linked(self, found: os.stat_result, name: str) -> str | None:
        """The name under which this file was already sent."""
        first = self._links.setdefault((found.st_dev, found.st_ino), name)
        return None if first == name else first

    def _add_bytes(self, place: str, info: tarfile.TarInfo) -> None:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            early = unsized.content(fd, self._root.shown(place))
            if early is not None:
                info.size = len(early)
                self._put(_header(info))
                self._put(early + bytes(-info.size % _BLOCK))
                return
            info.size = left = os.fstat(fd).st_size
            self._put(_header(info))
            while left:
                data = os.read(fd, min(left, protocol.CHUNK))
                if not data:
                    where = self._root.shown(place)
                    raise Problem("file_error", f"{where} became shorter while it was read")
                left -= len(data)
                self._put(data)
            self._put(bytes(-info.size % _BLOCK))
        finally:
            os.close(fd)

    def _put(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= protocol.CHUNK:
            self._flush()

    def _flush(self) -> None:
        assert self._conn is not None  # noqa: S101 - see _refuse
        view = memoryview(bytes(self._pending))
        self._pending = bytearray()
        for i in range(0, len(view), protocol.CHUNK):
            piece = view[i : i + protocol.CHUNK]
            self._conn.send(HEADER.pack(len(piece), BYTES) + piece)


class Unpacker:
    """A tar stream, unpacked below a folder. It stops at the first entry that is refused.

    Files belong to the agent's user; modes and times are the archive's. Refused are absolute names,
    ``..``, devices and pipes, and links that lead out of the folder.
    """

    def __init__(self, root: Root, path: object) -> None:
        self._root = root
        self._path = str(path)
        self._base = root.path(path)
        self._entries: list[dict[str, Any]] = []
        self._size = 0
        self._truncated = False
        self._folders: list[tuple[str, tarfile.TarInfo]] = []

    def open(self) -> None:
        """Make the folder."""
        try:
            os.makedirs(self._base, exist_ok=True)
        except FileExistsError as exc:
            problem = Problem("file_not_directory", f"{self._path} is not a directory")
            raise problem from exc
        except OSError as exc:
            raise of_errno(exc, self._path) from exc
        self._base = os.path.realpath(self._base)

    def feed(self, pieces: Iterator[bytes]) -> dict[str, Any]:
        """Unpack the stream; returns the listing of what was unpacked."""
        stream = cast("IO[bytes]", _Stream(pieces))
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    self._take(archive, member)
                    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
            for place, info in reversed(self._folders):
                os.chmod(place, info.mode & 0o7777)
                os.utime(place, (info.mtime, info.mtime))
        except tarfile.TarError as exc:
            raise Problem("invalid_request", f"this is no tar stream: {exc}") from exc
        except OSError as exc:
            where = self._root.shown(exc.filename) if exc.filename else self._path
            raise of_errno(exc, where) from exc
        return {"entries": self._entries, "truncated": self._truncated}

    def _take(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        place = self._target(info)
        if info.isdir():
            os.makedirs(place, exist_ok=True)
            if place != self._base:
                self._folders.append((place, info))
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if os.path.lexists(place):
                os.unlink(place)
            if info.issym():
                os.symlink(info.linkname, place)
            elif info.islnk():
                os.link(self._inside(info, info.linkname), place, follow_symlinks=False)
            else:
                _write(archive, info, place)
        self._note(place)

    def _target(self, info: tarfile.TarInfo) -> str:
        if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            raise _refused(info, "it is a device or a pipe")
        place = self._inside(info, info.name)
        if info.issym():
            end = os.path.join(os.path.dirname(place), info.linkname)
            if info.linkname.startswith("/") or not self._holds(os.path.realpath(end)):
                raise _refused(info, f"it links to {info.linkname}, which lies outside")
        return place

    def _inside(self, info: tarfile.TarInfo, name: str) -> str:
        """Where a name of the archive lies, and that it lies below the folder."""
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if name.startswith("/"):
            raise _refused(info, "its name is absolute")
        if ".." in parts or "\0" in name:
            raise _refused(info, "its name leads out of the folder")
        place = "/".join([self._base, *parts])
        # A symlink that was there, or came in this archive, may lie on the way.
        if parts and not self._holds(os.path.realpath(os.path.dirname(place))):
            raise _refused(info, "a link on the way leads out of the folder")
        return place

    def _holds(self, place: str) -> bool:
        return f"{place}/".startswith(f"{self._base.rstrip('/')}/")

    def _note(self, place: str) -> None:
        found = entry(self._root, place)
        self._size += weight(found)
        if len(self._entries) == protocol.MAX_ENTRIES or self._size > protocol.MAX_LISTING:
            self._truncated = True
        else:
            self._entries.append(found)


class _Stream(io.RawIOBase):
    """The pieces of a body as a file that can only be read on."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._left) < size and (piece := next(self._pieces, b"")):
            self._left += piece
        data, self._left = self._left[:size], self._left[size:]
        return data


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _write(archive: tarfile.TarFile, info: tarfile.TarInfo, place: str) -> None:
    source = archive.extractfile(info)
    assert source is not None  # noqa: S101 - only called for regular files
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while data := source.read(protocol.CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        os.fchmod(fd, info.mode & 0o7777)
    finally:
        os.close(fd)
    os.utime(place, (info.mtime, info.mtime))


def _refused(info: tarfile.TarInfo, why: str) -> Problem:
    return Problem(
        "invalid_path",
        f"{info.name[:200]!r} in the archive: {why}",
        hint="nothing of the archive from this entry on was unpacked",
        details={"name": info.name[:200]},
    )
