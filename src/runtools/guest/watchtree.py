"""A watched folder and all below it: kernel events about single folders become changes of paths.

Every folder has a kernel watch; the folders form a tree of names, so that one that is moved takes those
below it along. A folder that appears is watched first and looked into then: what was made in it before
is told as made now, and the kernel's own word on that, if it comes, is not told again.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from runtools.guest import inotify
from runtools.guest.inotify import Event, Inotify
from runtools.guest.problems import Problem, of_errno

CREATE: Final = "create"
CHANGE: Final = "change"
MOVE: Final = "move"
DELETE: Final = "delete"
OVERFLOW: Final = "overflow"

_CHANGED: Final = inotify.MODIFY | inotify.CLOSE_WRITE | inotify.ATTRIB
_GONE: Final = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT | inotify.IGNORED
# The second half of a move follows the first at once, but not in the same instant.
_SECOND_HALF_SECONDS: Final = 0.02
# Changes are handed on at the latest after so long, also while more come all the time.
_LONGEST_SECONDS: Final = 0.1
# What `files.temporary` makes: content of ours that is not in place yet.
_OURS: Final = re.compile(rb"\..*\.rt-[0-9a-f]{12}", re.DOTALL)


class Change(NamedTuple):
    """One change; ``source`` is where a moved entry was before."""

    kind: str
    path: bytes
    source: bytes | None
    folder: bool


class _Folder:
    """A watched folder: its name in its parent, and the folders in it."""

    __slots__ = ("children", "name", "parent", "wd")

    def __init__(self, wd: int, parent: _Folder | None, name: bytes) -> None:
        self.wd = wd
        self.parent = parent
        self.name = name
        self.children: dict[bytes, _Folder] = {}

    def path(self, name: bytes = b"") -> bytes:
        """Where it is now, or an entry in it."""
        names = [name] if name else []
        at: _Folder | None = self
        while at is not None:
            names.append(at.name)
            at = at.parent
        names.reverse()
        return b"/".join(names) or b"/"


# What is told of an entry, and in which folder it is; None once it turned out to be nothing.
_Told = tuple[_Folder, Change | None]


class _Leaving(NamedTuple):
    """The first half of a move: where the change stands in the list, and what left."""

    at: int
    path: bytes
    folder: _Folder | None
    ours: bool


class Tree:
    """One watched folder. Used by one thread at a time.

    Args:
        place: its absolute path, without a slash at the end; empty for ``/``.
        recursive: whether what lies in the folders below counts, too.
        room: how many more folders may be watched.
    """

    def __init__(self, place: bytes, recursive: bool, room: Callable[[], int]) -> None:
        self._place = place
        self._recursive = recursive
        self._room = room
        self._folders: dict[int, _Folder] = {}
        self._found: dict[tuple[int, bytes], int] = {}  # inodes of what was told by a look
        self._elsewhere: frozenset[bytes] = frozenset()
        self._inotify: Inotify | None = None
        self.gone = False

    def __len__(self) -> int:
        return len(self._folders)

    def arm(self) -> None:
        """Watch the folder and those below it as they are now; begins anew where it was armed before.

        Raises:
            Problem: it is no folder, or there are more folders than may be watched.
        """
        self.close()
        try:
            self._inotify = Inotify()
            top = self._watch(None, self._place, self._place or b"/")
        except OSError as exc:
            self.close()
            raise self._refused(exc) from exc
        if self._recursive:
            self._elsewhere = _mounts()
            self._look_into(top, None)

    def close(self) -> None:
        """Watch nothing any more."""
        self._folders.clear()
        self._found.clear()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def wait(self, seconds: float, wake: int) -> bool:
        """Whether the kernel has something to say, at the latest after so long."""
        return self._queue.wait(seconds, wake)

    def changes(self) -> list[Change]:
        """What has happened since the last call. When the folder itself is gone, the last of it.

        Raises:
            Problem: there are more folders by now than may be watched.
        """
        told: list[_Told] = []
        leaving: dict[int, _Leaving] = {}
        until = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < until:
            events = self._queue.read()
            if not events:
                self._found.clear()  # the kernel's word on all that was found has been read
                if not leaving or not self._queue.wait(_SECOND_HALF_SECONDS):
                    break
            for event in events:
                if event.mask & inotify.OVERFLOW:
                    self.arm()
                    so_far = [change for _, change in told if change is not None]
                    return [*so_far, Change(OVERFLOW, self._top(), None, True)]
                self._take(event, told, leaving)
        for left in reversed(leaving.values()):
            outside = self._forget(left.folder, alive=True)
            # What went on in it since then went on outside.
            told[left.at + 1 :] = [item for item in told[left.at + 1 :] if item[0] not in outside]
        return [change for _, change in told if change is not None]

    @property
    def _queue(self) -> Inotify:
        assert self._inotify is not None  # noqa: S101 - it is armed before it is asked
        return self._inotify

    def _top(self) -> bytes:
        return self._place or b"/"

    # --- one event ---

    def _take(self, event: Event, told: list[_Told], leaving: dict[int, _Leaving]) -> None:
        folder = self._folders.get(event.wd)
        if folder is None:
            return  # of a folder that left the tree
        if not event.name:
            self._of_itself(event, folder, told)
        elif event.mask & inotify.MOVED_FROM:
            self._left(event, folder, told, leaving)
        elif event.mask & inotify.MOVED_TO:
            self._arrived(event, folder, told, leaving.pop(event.cookie, None))
        elif not _OURS.fullmatch(event.name):
            self._of_entry(event, folder, told)

    def _of_itself(self, event: Event, folder: _Folder, told: list[_Told]) -> None:
        if folder.parent is None and event.mask & _GONE and not self.gone:
            self.gone = True
            told.append((folder, Change(DELETE, self._top(), None, True)))
        if event.mask & inotify.IGNORED:
            del self._folders[event.wd]

    def _of_entry(self, event: Event, folder: _Folder, told: list[_Told]) -> None:
        path, is_folder = folder.path(event.name), bool(event.mask & inotify.IS_FOLDER)
        if event.mask & inotify.CREATE:
            if self._was_found(event):
                return
            told.append((folder, Change(CREATE, path, None, is_folder)))
            if is_folder and event.name not in folder.children:
                self._adopt(folder, event.name, told)
        elif event.mask & inotify.DELETE:
            self._was_found(event)
            told.append((folder, Change(DELETE, path, None, is_folder)))
            if is_folder:
                self._forget(folder.children.pop(event.name, None), alive=False)
        elif event.mask & _CHANGED:
            told.append((folder, Change(CHANGE, path, None, is_folder)))

    def _left(
        self,
        event: Event,
        folder: _Folder,
        told: list[_Told],
        leaving: dict[int, _Leaving],
    ) -> None:
        """The first half of a move: a delete, unless the second half says that it is still here."""
        path, ours = folder.path(event.name), bool(_OURS.fullmatch(event.name))
        child = folder.children.pop(event.name, None)
        self._was_found(event)
        leaving[event.cookie] = _Leaving(len(told), path, child, ours)
        is_folder = bool(event.mask & inotify.IS_FOLDER)
        told.append((folder, None if ours else Change(DELETE, path, None, is_folder)))

    def _arrived(
        self, event: Event, folder: _Folder, told: list[_Told], left: _Leaving | None
    ) -> None:
        path, is_folder = folder.path(event.name), bool(event.mask & inotify.IS_FOLDER)
        # Also where one was found of that name, another may have taken its place since.
        seen = self._found.pop((event.wd, event.name), None)
        ours, found = bool(_OURS.fullmatch(event.name)), seen is not None and _inode(path) == seen
        if left is not None and not (left.ours or ours or found):
            told[left.at] = (folder, Change(MOVE, path, left.path, is_folder))
        elif not (ours or found):
            told.append((folder, Change(CREATE, path, None, is_folder)))
        if not is_folder or not self._recursive:
            return
        moved = left.folder if left is not None else None
        if found and (moved is None or self._folders.get(moved.wd) is not moved):
            return  # it is watched at its new place already
        self._forget(folder.children.pop(event.name, None), alive=False)
        if ours or not self._settled(moved, folder, event.name):
            self._forget(moved, alive=True)
            if not ours:
                self._adopt(folder, event.name, told)

    def _settled(self, moved: _Folder | None, parent: _Folder, name: bytes) -> bool:
        """Whether a moved folder, with all below it, now stands where it went."""
        if moved is None or self._folders.get(moved.wd) is not moved:
            return False
        try:
            # By its path another one may have been watched that has the old name again.
            same = self._queue.add(parent.path(name)) == moved.wd
        except OSError:
            same = True  # it went on already; that is told next
        if same:
            moved.parent, moved.name = parent, name
            parent.children[name] = moved
        return same

    def _was_found(self, event: Event) -> bool:
        """Whether it was told when its folder was looked into; the kernel says it once more."""
        return self._found.pop((event.wd, event.name), None) is not None

    # --- folders ---

    def _adopt(self, parent: _Folder, name: bytes, told: list[_Told]) -> None:
        """Watch a folder that has appeared, and tell what is in it already."""
        if self._recursive:
            child = self._try_watch(parent, name, parent.path(name))
            if child is not None:
                self._look_into(child, told)

    def _look_into(self, folder: _Folder, told: list[_Told] | None) -> None:
        """Watch the folders below; where it is wanted, tell what is there as created."""
        rest = [(folder, folder.path())]
        while rest:
            folder, place = rest.pop()
            try:
                with os.scandir(place) as entries:
                    for entry in entries:
                        is_folder = entry.is_dir(follow_symlinks=False)
                        if told is not None and not _OURS.fullmatch(entry.name):
                            self._found[folder.wd, entry.name] = _inode(entry.path)
                            told.append((folder, Change(CREATE, entry.path, None, is_folder)))
                        if is_folder:
                            child = self._try_watch(folder, entry.name, entry.path)
                            if child is not None:
                                rest.append((child, entry.path))
            except OSError:
                continue  # it went while we looked; its parent's event tells that

    def _try_watch(self, parent: _Folder, name: bytes, place: bytes) -> _Folder | None:
        """Watch a folder below; None where it is ours, another file system, or gone again."""
        if place in self._elsewhere or _OURS.fullmatch(name):
            return None
        try:
            return self._watch(parent, name, place)
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise self._refused(exc) from exc
            return None

    def _watch(self, parent: _Folder | None, name: bytes, place: bytes) -> _Folder:
        if self._room() <= 0:
            raise self._too_many("as many as may be at once")
        wd = self._queue.add(place)
        folder = _Folder(wd, parent, name)
        self._folders[wd] = folder
        if parent is not None:
            parent.children[name] = folder
        return folder

    def _forget(self, folder: _Folder | None, *, alive: bool) -> set[_Folder]:
        """Let a folder go with all below it; one that lives on elsewhere must not be heard of."""
        rest, gone = [folder] if folder is not None else [], set()
        while rest:
            one = rest.pop()
            gone.add(one)
            rest += one.children.values()
            if self._folders.get(one.wd) is one:
                del self._folders[one.wd]
                if alive:
                    self._queue.remove(one.wd)
        return gone

    def _refused(self, exc: OSError) -> Problem:
        if exc.errno in {errno.ENOSPC, errno.EMFILE}:
            return self._too_many("the kernel keeps no more (fs.inotify)")
        return of_errno(exc, os.fsdecode(self._top()))

    def _too_many(self, why: str) -> Problem:
        return Problem(
            "too_large",
            f"{len(self._folders)} folders are watched below {os.fsdecode(self._top())!r}: {why}",
            hint="watch a part of the tree, or without recursive",
        )


def _inode(path: bytes) -> int:
    """The number of what stands there at this moment; -1: nothing does."""
    try:
        return os.lstat(path).st_ino
    except OSError:
        return -1


def _mounts() -> frozenset[bytes]:
    """Where other file systems begin: they are not entered."""
    with open("/proc/self/mountinfo", "rb") as file:
        places = [line.split(b" ", 5)[4] for line in file]
    return frozenset(re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]), at) for at in places)
