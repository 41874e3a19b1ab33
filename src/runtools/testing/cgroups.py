"""A model of version 2 of control groups: its files in a folder, as the kernel's documents describe them.

A group has the files of a controller when the one above it gives them on; none can be made, and what may
only be read is not written. Limits are held by nobody.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What the documents say of a group below the root: its files, whether they may be read and written, and
# what is in them at first.
CORE = {
    "cgroup.controllers": ("r", ""),
    "cgroup.events": ("r", "populated 0\nfrozen 0\n"),
    "cgroup.freeze": ("rw", "0\n"),
    "cgroup.kill": ("w", ""),
    "cgroup.max.depth": ("rw", "max\n"),
    "cgroup.max.descendants": ("rw", "max\n"),
    "cgroup.procs": ("rw", ""),
    "cgroup.stat": ("r", "nr_descendants 0\nnr_dying_descendants 0\n"),
    "cgroup.subtree_control": ("rw", ""),
    "cgroup.threads": ("rw", ""),
    "cgroup.type": ("rw", "domain\n"),
    "cpu.stat": ("r", "usage_usec 0\nuser_usec 0\nsystem_usec 0\n"),
}
OF_CONTROLLER = {
    "cpu": {
        "cpu.idle": ("rw", "0\n"),
        "cpu.max": ("rw", "max 100000\n"),
        "cpu.max.burst": ("rw", "0\n"),
        "cpu.weight": ("rw", "100\n"),
        "cpu.weight.nice": ("rw", "0\n"),
    },
    "memory": {
        "memory.current": ("r", "0\n"),
        "memory.events": ("r", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
        "memory.high": ("rw", "max\n"),
        "memory.low": ("rw", "0\n"),
        "memory.max": ("rw", "max\n"),
        "memory.min": ("rw", "0\n"),
        "memory.oom.group": ("rw", "0\n"),
        "memory.stat": ("r", "anon 0\nfile 0\n"),
        "memory.swap.current": ("r", "0\n"),
        "memory.swap.max": ("rw", "max\n"),
    },
    "pids": {
        "pids.current": ("r", "0\n"),
        "pids.events": ("r", "max 0\n"),
        "pids.max": ("rw", "max\n"),
    },
}
FILES = {name: file for files in (CORE, *OF_CONTROLLER.values()) for name, file in files.items()}


class Kernel:
    """Version 2 in a folder, as far as its files go: what the documents say of them, and no limits."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real: dict[str, Any] = {
            name: getattr(Path, name) for name in ("mkdir", "rmdir", "write_text")
        }
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            (root / name).write_text("")
        (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")

    def mkdir(self, folder: Path, *given: int, **more: bool) -> None:
        """Make a group, with its files."""
        new = folder.is_relative_to(self._root) and not folder.exists()
        self._real["mkdir"](folder, *given, **more)
        if new:
            self._fill(folder, CORE)
            given_on = (folder.parent / "cgroup.subtree_control").read_text().split()
            self._real["write_text"](folder / "cgroup.controllers", " ".join(given_on) + "\n")
            for name in given_on:
                self._fill(folder, OF_CONTROLLER[name])

    def rmdir(self, folder: Path) -> None:
        """Remove a group with its files, unless somebody is in it."""
        if not folder.is_relative_to(self._root):
            self._real["rmdir"](folder)
        elif not folder.exists():
            raise FileNotFoundError(errno.ENOENT, "gone", str(folder))
        elif (folder / "cgroup.procs").read_text() or any(one.is_dir() for one in folder.iterdir()):
            raise OSError(errno.EBUSY, "busy", str(folder))
        else:
            shutil.rmtree(folder)

    def write_text(self, file: Path, text: str, **more: str) -> int:
        """Write into a file that is there, and may be written."""
        if file.is_relative_to(self._root):
            if (
                not file.exists()
            ):  # nobody makes a file there: to open one that is not there is refused
                raise PermissionError(errno.EACCES, "there is no such file", str(file))
            if FILES[file.name][0] == "r":
                raise OSError(errno.EINVAL, "it can only be read", str(file))
            if file.name == "cgroup.subtree_control":
                return self._give_on(file, text)
        return int(self._real["write_text"](file, text, **more))

    def _give_on(self, file: Path, text: str) -> int:
        """Each word turns a controller on or off for the groups below: all of them, or none."""
        held = (file.parent / "cgroup.controllers").read_text().split()
        on = set(file.read_text().split())
        for word in text.split():
            if word[0] not in "+-":
                raise OSError(errno.EINVAL, "neither + nor -", str(file))
            if word[1:] not in held:
                raise FileNotFoundError(errno.ENOENT, "no such controller", str(file))
            on = on | {word[1:]} if word[0] == "+" else on - {word[1:]}
        if on and file.parent != self._root and (file.parent / "cgroup.procs").read_text():
            raise OSError(errno.EBUSY, "processes are in it", str(file))
        for child in (one for one in file.parent.iterdir() if one.is_dir()):
            self._real["write_text"](child / "cgroup.controllers", " ".join(sorted(on)) + "\n")
            for name in on:
                self._fill(child, OF_CONTROLLER[name])
        return int(self._real["write_text"](file, " ".join(sorted(on))))

    def _fill(self, folder: Path, files: Mapping[str, tuple[str, str]]) -> None:
        for name, (_, text) in files.items():
            if not (folder / name).exists():
                self._real["write_text"](folder / name, text)


def said_by_the_kernel(file: Path, text: str) -> None:
    """What no one can write, and the kernel changes."""
    with file.open("w") as out:
        out.write(text)
