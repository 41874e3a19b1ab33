"""The kept states on this host: a folder each, which is there whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from runtools.errors import NotFound, SnapshotInUse
from runtools.platform.core.ports.host import Kept
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.places import Places, clear_away
from runtools.platform.kit.files import write_atomic

SHEET = "snapshot.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a kept state.

    Attributes:
        token: what the agent in it asks of callers.
        fingerprint: what it needs to be restored.
        to_end, called_off: processes of which that was asked before it was taken, as in a `Record`.
    """

    snapshot_id: str
    sandbox_id: str
    template_version_id: str
    vcpus: int
    memory_mb: int
    disk_mb: int
    token: str = field(repr=False)
    fingerprint: dict[str, str]
    size_bytes: int
    standstill_ms: float
    created_at: datetime
    to_end: tuple[str, ...] = ()
    called_off: dict[str, datetime] = field(default_factory=dict)

    @property
    def kept(self) -> Kept:
        """As the port says it."""
        return Kept(
            snapshot_id=self.snapshot_id,
            size_bytes=self.size_bytes,
            standstill_ms=self.standstill_ms,
        )


_SNAPSHOT = TypeAdapter(Snapshot)


def scratch(places: Places, snapshot_id: str) -> Path:
    """Where a snapshot is made before it gets its name."""
    return places.snapshots / f".{snapshot_id}"


def write_sheet(folder: Path, snapshot: Snapshot) -> None:
    """Describe the state in the folder, durably."""
    write_atomic(folder / SHEET, _SNAPSHOT.dump_json(snapshot))


def find(places: Places, snapshot_id: str) -> Snapshot | None:
    """The snapshot, if it is there. One whose sheet is none is left alone, for a person to look at."""
    sheet = places.snapshot(snapshot_id) / SHEET
    try:
        return _SNAPSHOT.validate_json(sheet.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as exc:
        log.error(
            "a snapshot is damaged and left alone: %s has %d faults", sheet, exc.error_count()
        )
        return None


def of_sandbox(places: Places, sandbox_id: str) -> list[Snapshot]:
    """All snapshots of a sandbox."""
    return [one for one in everything(places) if one.sandbox_id == sandbox_id]


def everything(places: Places) -> Iterator[Snapshot]:
    """All snapshots."""
    for folder in sorted(places.snapshots.iterdir()):
        if not folder.name.startswith(".") and (found := find(places, folder.name)) is not None:
            yield found


@contextmanager
def pinned(engine: Engine, snapshot_id: str) -> Iterator[None]:
    """Keep a snapshot from being dropped while something is restored from it."""
    engine.pins[snapshot_id] = engine.pins.get(snapshot_id, 0) + 1
    try:
        yield
    finally:
        engine.pins[snapshot_id] -= 1
        if not engine.pins[snapshot_id]:
            del engine.pins[snapshot_id]


async def drop(engine: Engine, snapshot_id: str) -> None:
    """Remove a snapshot.

    Raises:
        NotFound: there is none of that id.
        SnapshotInUse: a rollback to it is under way.
    """
    if find(engine.places, snapshot_id) is None:
        raise NotFound(f"this host has no snapshot {snapshot_id}")
    if snapshot_id in engine.pins:
        raise SnapshotInUse(f"a rollback to {snapshot_id} is under way", hint="try again after it")
    # Renamed first: a crash in the middle must not leave half a snapshot under its name.
    gone = scratch(engine.places, snapshot_id)
    await clear_away(gone)
    engine.places.snapshot(snapshot_id).rename(gone)
    await clear_away(gone)
