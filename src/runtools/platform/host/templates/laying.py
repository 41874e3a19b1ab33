"""Putting files of ours into a root that is being built, before anybody else's program has run there."""

from __future__ import annotations

import shutil
from pathlib import Path


def lay(source: Path, target: Path) -> None:
    """Copy a tree into the root; what stands in a file's place goes."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            lay(entry, place)
        else:
            place.unlink(missing_ok=True)
            shutil.copyfile(entry, place)
            place.chmod(0o644)


def link(path: Path, target: str) -> None:
    """A symbolic link, in the place of whatever file or link is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
