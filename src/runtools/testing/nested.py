"""Folders deeper than any path is long, as a VMM that a guest has taken over may leave them."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def nest(top: Path, depth: int, name: str = "d") -> None:
    """Make folders of one name in each other, with a file in every one."""
    at = os.open(top, _FOLDER)
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        inner = os.open(name, _FOLDER, dir_fd=at)
        os.close(at)
        at = inner
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
