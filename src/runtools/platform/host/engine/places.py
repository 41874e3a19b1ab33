"""Where the host part keeps what: the only module of the engine that puts paths together.

root/epoch                   how often this host was started
root/host-id
root/sandboxes/<id>/         machine.json (journal), ledger.jsonl
root/sandboxes/<id>/<n>/     its n-th life: overlay.img and the driver's vmm/
root/snapshots/<id>/         a kept state: snapshot.json, overlay.img and what the driver captured
root/captures/<id>/          the same for the moment of a fork
root/ops/<op>.json           results of acts, for repeats
root/reports/<epoch>.jsonl   what was observed
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtools.platform.host.disk.trees import remove

JOURNAL = "machine.json"
LEDGER = "ledger.jsonl"
OVERLAY = "overlay.img"

# A VMM runs as a user of its own and passes through these folders, but may not list them.
_PASSABLE = 0o711


@dataclass(frozen=True, slots=True)
class Places:
    """The folders below the host's home."""

    root: Path

    @property
    def sandboxes(self) -> Path:
        """A folder per sandbox."""
        return self.root / "sandboxes"

    @property
    def snapshots(self) -> Path:
        """A folder per kept state."""
        return self.root / "snapshots"

    @property
    def captures(self) -> Path:
        """A folder per fork under way."""
        return self.root / "captures"

    @property
    def ops(self) -> Path:
        """Results of acts by op id."""
        return self.root / "ops"

    @property
    def reports(self) -> Path:
        """The report log."""
        return self.root / "reports"

    def sandbox(self, sandbox_id: str) -> Path:
        """All that is kept of one sandbox, its snapshots excepted."""
        return self.sandboxes / sandbox_id

    def life(self, sandbox_id: str, number: int) -> Path:
        """The folder of one of its machines."""
        return self.sandboxes / sandbox_id / str(number)

    def overlay(self, sandbox_id: str, number: int) -> Path:
        """The disk of one of its machines."""
        return self.life(sandbox_id, number) / OVERLAY

    def snapshot(self, snapshot_id: str) -> Path:
        """A kept state."""
        return self.snapshots / snapshot_id

    def lives(self, sandbox_id: str) -> Iterator[int]:
        """The numbers of the machine folders that are there."""
        folder = self.sandbox(sandbox_id)
        if folder.exists():
            yield from sorted(int(item.name) for item in folder.iterdir() if item.name.isdigit())

    def prepare(self) -> None:
        """Make the folders that are not there."""
        for folder in (self.sandboxes, self.snapshots, self.captures, self.ops, self.reports):
            make_folder(folder)


def make_folder(folder: Path) -> None:
    """A folder that VMMs may pass through."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(_PASSABLE)


async def clear_away(*folders: Path) -> None:
    """Remove folders with large files in them, without holding up everybody else."""
    for folder in folders:
        await asyncio.to_thread(remove, folder)
