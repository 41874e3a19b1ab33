"""The processes of a paused sandbox, as they stood when it was paused: for those who look and wake nothing.

The file lies with the machine that it speaks of, and is there only while that one stands still: it is
written in a pause and goes when the machine goes on. Where there is none, nobody knows.
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
_LIST = TypeAdapter(list[Process])


def keep(folder: Path, processes: list[Process]) -> None:
    """Write down how they stand."""
    write_atomic(folder / FILE, _LIST.dump_json(processes), durable=False)


def forget(folder: Path) -> None:
    """They go on: what is written does not hold any more.

    Raises:
        OSError: it is still there.
    """
    (folder / FILE).unlink(missing_ok=True)


def read(folder: Path) -> list[Process] | None:
    """As they stood; None: nobody knows."""
    try:
        return _LIST.validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as exc:
        log.warning("%s is not read: %s", folder / FILE, exc)
        return None
