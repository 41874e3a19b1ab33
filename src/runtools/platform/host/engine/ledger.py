"""The ledger of a sandbox: append-only lines that say what changed, why, and who asked."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from runtools.platform.host.engine.places import LEDGER
from runtools.platform.kit.files import write_whole
from runtools.sdk.shapes.sandboxes import LedgerEntry


def append(folder: Path, entry: LedgerEntry) -> None:
    """Add an entry; it is whole or absent after a crash of ours."""
    append_line(folder / LEDGER, entry.model_dump_json().encode())


def read(folder: Path) -> list[LedgerEntry]:
    """All entries, oldest first. A torn last line (a power loss) is left out."""
    try:
        lines = (folder / LEDGER).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(LedgerEntry.model_validate_json(line))
        except ValidationError:
            break
    return entries


def mend(folder: Path, last: LedgerEntry) -> None:
    """Bring the ledger up to the entry that the journal carries, after a crash between the two."""
    _cut_torn(folder / LEDGER)
    entries = read(folder)
    if not entries or entries[-1].seq < last.seq:
        append(folder, last)


def _cut_torn(file: Path) -> None:
    """Take away what follows the last whole line: another entry appended to it would be lost."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(file, whole)


def append_line(file: Path, line: bytes) -> None:
    """Add one line, whole or not at all.

    Raises:
        OSError: there is no room for it, or the disk fails.
    """
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        write_whole(fd, line + b"\n")
    finally:
        os.close(fd)
