"""The processes of a paused sandbox, as they stood when it was paused: for those who look and wake nothing.

The file is there from the first start of a process on; where it is not, there never was one. It is written
anew before each pause. A guest that does not answer then leaves a file that says nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from runtools.platform.kit.files import write_atomic
from runtools.sdk.shapes.processes import Process

log = logging.getLogger(__name__)

FILE: Final = "processes.json"
_LIST = TypeAdapter(list[Process] | None)


def begin(folder: Path) -> None:
    """There is a process to be known from now on."""
    if not (folder / FILE).exists():
        keep(folder, None)


def is_begun(folder: Path) -> bool:
    """Whether there ever was one."""
    return (folder / FILE).exists()


def keep(folder: Path, processes: list[Process] | None) -> None:
    """Write down how they stand; None: that nobody knows."""
    write_atomic(folder / FILE, _LIST.dump_json(processes), durable=False)


def inherit(parent: Path, folder: Path) -> None:
    """A sandbox that goes on from the disk of another has its processes, too."""
    if is_begun(parent):
        begin(folder)


def read(folder: Path) -> list[Process] | None:
    """As they stood; None: nobody knows."""
    try:
        return _LIST.validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as exc:
        log.warning("%s is not read: %s", folder / FILE, exc)
        return None
