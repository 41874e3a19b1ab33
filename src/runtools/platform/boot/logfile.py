"""The log of a detached platform: its size is bounded, and its former end lies beside it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from runtools.platform.kit.clock import Clock

log = logging.getLogger(__name__)

MOST_BYTES: Final = 32 << 20
_LOOK_SECONDS: Final = 30.0


async def keep_bounded(file: Path, clock: Clock) -> None:
    """For ever, where it is what we write to; else it is somebody else's to look after."""
    while is_ours(file):
        try:
            await asyncio.to_thread(turn, file)
        except OSError as exc:
            log.warning("the log could not be turned over: %s", exc)
        await clock.sleep(_LOOK_SECONDS)


def is_ours(file: Path) -> bool:
    """Whether our own messages go there."""
    try:
        return os.path.samestat(os.fstat(sys.stderr.fileno()), file.stat())
    except (OSError, ValueError):
        return False


def size_of(file: Path) -> int:
    """How much of it there is."""
    return file.stat().st_size if file.exists() else 0


def said_since(file: Path, size: int, lines: int) -> str:
    """The last lines of what was written since it had that size; of all, where it was begun anew."""
    said = file.read_bytes()
    fresh = said[size:] if len(said) >= size else said
    return "\n".join(fresh.decode(errors="replace").splitlines()[-lines:])


def turn(file: Path) -> None:
    """Where it has outgrown its size, keep it beside itself and begin it anew.

    All parts have it open and append to it, so it stays the same file. What is written between the copy
    and the cut is lost: a line or two.
    """
    if file.stat().st_size <= MOST_BYTES:
        return
    fresh = file.with_name(f".{file.name}.new")
    try:
        target = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(target, "wb") as into, file.open("rb") as source:
            shutil.copyfileobj(source, into)
        fresh.replace(file.with_name(f"{file.name}.1"))
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    os.truncate(file, 0)
