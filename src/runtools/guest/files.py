"""Acts on files that need no stream: stat, list, mkdir, move, copy, remove, chmod."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from runtools.guest import deep, protocol, unsized
from runtools.guest.conn import write_all
from runtools.guest.paths import Root
from runtools.guest.problems import Problem, invalid, of_errno

_COPY_PIECE: Final = 8 << 20
_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
_TEMPORARY: Final = ".rt-"  # what a half-made file is called, see `temporary`


@lru_cache(maxsize=256)
def owner_name(uid: int) -> str:
    """The user's name, or the number of one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=256)
def group_name(gid: int) -> str:
    """The group's name, or the number of one without."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def entry(root: Root, place: str, found: os.stat_result | None = None) -> dict[str, Any]:
    """What is said of one file; a symlink is itself, not what it points to."""
    found = os.lstat(place) if found is None else found
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "other")
    return {
        "path": root.shown(place),
        "kind": kind,
        "size": found.st_size,
        "mode": stat.S_IMODE(found.st_mode),
        "owner": owner_name(found.st_uid),
        "group": group_name(found.st_gid),
        "modified": found.st_mtime,
        "target": _text(os.readlink(place)) if kind == "symlink" else None,
    }


def weight(told: dict[str, Any]) -> int:
    """At most how many bytes an entry takes as JSON."""
    texts = (told["path"], told["target"] or "")
    return 250 + sum(len(text) if text.isascii() else 6 * len(text) for text in texts)


def temporary(place: str) -> str:
    """A name beside a file, for its next content."""
    folder, name = os.path.split(place)
    return f"{folder}/.{name[:100]}{_TEMPORARY}{secrets.token_hex(6)}"


class Files:
    """Acts on the files of one machine."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def stat(self, path: object) -> dict[str, Any]:
        """One entry."""
        place = self._root.path(path)
        try:
            return entry(self._root, place)
        except OSError as exc:
            raise of_errno(exc, str(path)) from exc

    def list(self, path: object, depth: int) -> dict[str, Any]:
        """The entries below a directory, down to a depth, sorted by path."""
        top = self._root.path(path)
        if depth < 1:
            raise invalid("depth must be at least 1")
        entries: list[dict[str, Any]] = []
        size = 0
        truncated = False
        try:
            for found in self._walk(top, depth):
                size += weight(found)
                if len(entries) == protocol.MAX_ENTRIES or size > protocol.MAX_LISTING:
                    truncated = True
                    break
                entries.append(found)
        except OSError as exc:
            raise of_errno(exc, str(path)) from exc
        entries.sort(key=lambda e: e["path"])
        return {"entries": entries, "truncated": truncated}

    def mkdir(self, path: object, mode: int) -> dict[str, Any]:
        """Make a directory and its parents; one that is there is left as it is."""
        place = self._root.path(path)
        parent = os.path.dirname(place.rstrip("/"))
        if os.path.exists(parent) and not os.path.isdir(parent):
            raise Problem("file_not_directory", f"{self._root.shown(parent)} is not a directory")
        try:
            os.makedirs(parent, exist_ok=True)
            try:
                os.mkdir(place)
                os.chmod(place, mode)
            except FileExistsError:
                if not os.path.isdir(place):
                    raise
            return entry(self._root, place)
        except OSError as exc:
            raise of_errno(exc, str(path)) from exc

    def chmod(self, path: object, mode: int) -> dict[str, Any]:
        """Set the permission bits."""
        place = self._root.path(path)
        try:
            os.chmod(place, mode)
            return entry(self._root, place)
        except OSError as exc:
            raise of_errno(exc, str(path)) from exc

    def remove(self, path: object, *, recursive: bool) -> dict[str, Any]:
        """Remove a file, or a directory: an empty one, or with ``recursive`` all of it."""
        place = self._root.path(path)
        if os.path.normpath(place) == os.path.normpath(self._root.own("/")):
            raise Problem("invalid_path", "the root directory cannot be removed")
        try:
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                os.unlink(place)
            elif recursive:
                deep.remove(place)
            else:
                os.rmdir(place)
        except OSError as exc:
            raise of_errno(exc, str(path)) from exc
        return {}

    def move(self, source: object, target: object, *, overwrite: bool) -> dict[str, Any]:
        """Move a file or directory. What crosses file systems is copied, then removed."""
        start, end = self._two(source, target, overwrite=overwrite)
        try:
            try:
                os.rename(start, end)
            except OSError as exc:
                # An overlay answers so also for a directory that stems from the image below.
                if exc.errno != errno.EXDEV:
                    raise
                self._copy(start, end)
                _remove_any(start)
            return entry(self._root, end)
        except OSError as exc:
            raise of_errno(exc, f"{source} → {target}") from exc

    def copy(self, source: object, target: object, *, overwrite: bool) -> dict[str, Any]:
        """Copy a file or directory with modes, times, owners, symlinks and holes."""
        start, end = self._two(source, target, overwrite=overwrite)
        try:
            self._copy(start, end)
            return entry(self._root, end)
        except OSError as exc:
            raise of_errno(exc, f"{source} → {target}") from exc

    def _two(self, source: object, target: object, *, overwrite: bool) -> tuple[str, str]:
        start, end = self._root.path(source).rstrip("/"), self._root.path(target).rstrip("/")
        try:
            moved = os.lstat(start)
        except OSError as exc:
            raise of_errno(exc, str(source)) from exc
        if f"{end}/".startswith(f"{start}/"):
            raise Problem("invalid_path", f"{target} is {source} or lies within it")
        if os.path.lexists(end):
            if not overwrite:
                raise Problem("file_exists", f"{target} exists", hint="overwrite replaces it")
            there = os.lstat(end)
            if stat.S_ISDIR(there.st_mode) and not stat.S_ISDIR(moved.st_mode):
                raise Problem("file_is_directory", f"{target}: it is a directory")
        return start, end

    def _copy(self, start: str, end: str) -> None:
        """Copy under a temporary name, then put it in place as a whole."""
        fresh = temporary(end)
        try:
            deep.copy(start, fresh, copy_bytes, give_away)
            os.rename(fresh, end)
        except BaseException:
            _remove_any(fresh)
            raise

    def _walk(self, folder: str, depth: int) -> Iterator[dict[str, Any]]:
        with os.scandir(folder) as found:
            inside = []
            for item in found:
                inside.append(item)
                if len(inside) > protocol.MAX_ENTRIES:
                    break
        for item in sorted(inside, key=lambda i: i.name):
            try:
                here = item.stat(follow_symlinks=False)
                yield entry(self._root, item.path, here)
                if depth > 1 and stat.S_ISDIR(here.st_mode):
                    yield from self._walk(item.path, depth - 1)
            except FileNotFoundError:
                continue  # it went while we looked


def give_away(place: str, like: os.stat_result) -> None:
    """Owner, mode and times as another file's, as far as the agent may."""
    if os.geteuid() == 0:
        os.chown(place, like.st_uid, like.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(like.st_mode):
        os.chmod(place, stat.S_IMODE(like.st_mode))
    os.utime(place, ns=(like.st_atime_ns, like.st_mtime_ns), follow_symlinks=False)


def copy_bytes(start: str, end: str) -> None:
    source = os.open(start, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        target = os.open(end, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            early = unsized.content(source, start)
            if early is not None:
                write_all(target, early)
                return
            size = os.fstat(source).st_size
            for first, last in _filled(source, size):
                _copy_range(source, target, first, last)
            os.ftruncate(target, size)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _filled(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data; what lies between them is holes."""
    at = 0
    while at < size:
        try:
            first = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        at = os.lseek(fd, first, os.SEEK_HOLE)
        yield first, at


def _copy_range(source: int, target: int, first: int, last: int) -> None:
    while first < last:
        data = os.pread(source, min(last - first, _COPY_PIECE), first)
        if not data:
            return  # it was cut short meanwhile
        view = memoryview(data)
        while view:
            done = os.pwrite(target, view, first)
            view, first = view[done:], first + done


def _remove_any(place: str) -> None:
    if not os.path.lexists(place):
        return
    if stat.S_ISDIR(os.lstat(place).st_mode):
        deep.remove(place)
    else:
        os.unlink(place)


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
