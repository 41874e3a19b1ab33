"""The watched folders of a machine: a thread for each, and their latest changes, kept for readers.

A reader asks again and again for what came after the number it knows. The numbers count up from the
microsecond at which the folder was armed, so they are always greater than those of an earlier watch
of the same folder: whoever comes with a number of that is told that something was lost.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from runtools.guest import protocol
from runtools.guest.conn import Gone
from runtools.guest.paths import Root
from runtools.guest.problems import Problem
from runtools.guest.watchtree import CHANGE, Change, Tree

MAX_WATCHES: Final = 64
MAX_FOLDERS: Final = 20_000  # of all watches; each costs the kernel about 1 KB
MAX_KEPT: Final = 8192  # changes of one watch
_ANSWER_BYTES: Final = 1 << 20
KEEP_SECONDS: Final = 600  # without a reader
LINGER_SECONDS: Final = 60  # after its end
# Between two looks at the kernel's queue: what writes without end costs no more than this allows.
_PAUSE_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 5.0


class Watches:
    """All watches of one machine."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._scope = ""
        self._watches: dict[tuple[str, bool], _Watch] = {}

    def poll(
        self,
        scope: str,
        path: object,
        recursive: bool,
        after: int | None,
        seconds: float,
        is_gone: Callable[[], bool],
    ) -> dict[str, Any]:
        """The changes after a number, waited for at most so long; None: arm it, and begin now.

        Args:
            scope: which machine this is; watches that a copy finds in its memory are not its own.
            path: an absolute path of a folder.
            recursive: whether what lies in folders below counts, too.
            after: the number of the last change known.
            seconds: how long to wait for the next.
            is_gone: whether the reader has gone away.

        Raises:
            Problem: it is no folder (any more), or holds too many.
            Gone: the reader has gone away.
        """
        place = self._root.path(path)
        watch = self._watch(scope, (_plain(str(path)), recursive), place, after)
        last, found = watch.poll(after, seconds, is_gone)
        return {"last": last, "lost": found is None, "changes": list(map(self._told, found or ()))}

    def _told(self, change: Change) -> dict[str, Any]:
        source = change.source
        return {
            "kind": change.kind,
            "path": self._root.shown(os.fsdecode(change.path)),
            "source": None if source is None else self._root.shown(os.fsdecode(source)),
            "folder": change.folder,
        }

    def _watch(self, scope: str, key: tuple[str, bool], place: str, after: int | None) -> _Watch:
        with self._lock:
            if scope != self._scope:
                for other in self._watches.values():
                    other.stop()
                self._scope, self._watches = scope, {}
            self._watches = {k: one for k, one in self._watches.items() if not one.is_over()}
            found = self._watches.get(key)
            if found is not None and (not found.stopped or found.has_more(after)):
                return found
            if len(self._watches) >= MAX_WATCHES:
                self._watches.pop(self._longest_unread()).stop(wait=True)
            tree = Tree(os.fsencode(_plain(place)).rstrip(b"/"), key[1], self._room)
            found = self._watches[key] = _Watch(tree)
            return found

    def _longest_unread(self) -> tuple[str, bool]:
        return min(self._watches, key=lambda key: self._watches[key].read_at)

    def _room(self) -> int:
        return MAX_FOLDERS - sum(len(one.tree) for one in tuple(self._watches.values()))


class _Watch:
    """One watched folder: its thread writes down what changes, readers wait for it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.stopped = False
        self.read_at = time.monotonic()
        self._news = threading.Condition()
        self._kept: deque[Change] = deque()
        self._last = 0  # the number of the latest change
        self._told = 0  # the greatest number that a reader knows
        self._changed: dict[bytes, int] = {}  # the number of a path's latest change
        self._readers = 0
        self._problem: Problem | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None

    def poll(
        self, after: int | None, seconds: float, is_gone: Callable[[], bool]
    ) -> tuple[int, list[Change] | None]:
        """The changes after a number and the number of the last of them; None when some were lost."""
        until = time.monotonic() + seconds
        with self._news:
            self._readers += 1
            try:
                self._armed()
                while True:
                    last, found = self._after(after)
                    self._told = max(self._told, last)
                    if found or found is None or after is None:
                        return last, found
                    if self._problem is not None:
                        raise self._problem
                    left = until - time.monotonic()
                    if left <= 0 or self.stopped:
                        return last, None if self.stopped else found
                    self._news.wait(min(left, _LOOK_SECONDS))
                    if is_gone():
                        raise Gone("the reader went away")
            finally:
                self._readers -= 1
                self.read_at = time.monotonic()

    def has_more(self, after: int | None) -> bool:
        """Whether it has something to tell to who knows this number, though it has stopped."""
        return after is not None and 0 < self._last - after <= len(self._kept)

    def is_over(self) -> bool:
        """Whether it has stopped, and nobody can still be on the way to its last changes."""
        return self.stopped and time.monotonic() - self.read_at > LINGER_SECONDS

    def stop(self, *, wait: bool = False) -> None:
        """End it; the thread closes what it used."""
        with self._news:
            self.stopped = True
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        if wait and self._thread is not None:
            self._thread.join()

    def _armed(self) -> None:
        """Begin, if nobody has before."""
        if self._last:
            return
        if self._problem is not None:
            raise self._problem
        try:
            self.tree.arm()
        except Problem as problem:
            self.stopped, self._problem = True, problem
            self.tree.close()
            raise
        self._last = time.time_ns() // 1000
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _after(self, after: int | None) -> tuple[int, list[Change] | None]:
        if after is None:
            return self._last, []
        new = self._last - after
        if new < 0 or new > len(self._kept):
            return self._last, None
        found: list[Change] = []
        size = 0
        for at in range(len(self._kept) - new, len(self._kept)):
            change = self._kept[at]
            size += 6 * (len(change.path) + len(change.source or b""))
            if len(found) == protocol.MAX_CHANGES or (found and size > _ANSWER_BYTES):
                break
            found.append(change)
        return after + len(found), found

    def _run(self) -> None:
        try:
            while not (self.stopped or self._is_unread()):
                if self.tree.wait(KEEP_SECONDS / 10, self._wake):
                    self._keep(self.tree.changes())
                    if self.tree.gone:
                        break
                    time.sleep(_PAUSE_SECONDS)
        except Problem as problem:
            self._problem = problem
        except BaseException as exc:
            self._problem = Problem("internal", f"the watch failed: {type(exc).__name__}: {exc}")
            raise
        finally:
            self._end()

    def _end(self) -> None:
        with self._news:
            if self.tree.gone:
                self._problem = Problem("file_missing", "the watched folder is gone")
            self.stopped = True
            self.tree.close()
            os.close(self._wake)
            self._wake = -1
            self._news.notify_all()

    def _is_unread(self) -> bool:
        return not self._readers and time.monotonic() - self.read_at > KEEP_SECONDS

    def _keep(self, changes: list[Change]) -> None:
        with self._news:
            for change in changes:
                if change.kind == CHANGE:
                    if self._changed.get(change.path, 0) > self._told:
                        continue  # whoever will be told of the earlier one sees this one, too
                    self._changed[change.path] = self._last + 1
                elif change.folder:
                    self._changed.clear()  # other paths lead to what is in it
                else:
                    self._changed.pop(change.path, None)
                    self._changed.pop(change.source or b"", None)
                self._kept.append(change)
                self._last += 1
            while len(self._kept) > MAX_KEPT:
                self._kept.popleft()
            if len(self._changed) > MAX_KEPT:
                self._changed.clear()
            self._news.notify_all()


def _plain(path: str) -> str:
    """A path with one slash between its names and none at its end, but for ``/`` alone."""
    return "/" + "/".join(name for name in path.split("/") if name not in {"", "."})
