"""Room on the disk for the copies that an act makes, held from before the act begins until it ends."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from runtools.platform.host.disk import files
from runtools.platform.host.disk.trees import used_bytes
from runtools.platform.host.engine.budget import MB
from runtools.platform.host.engine.engine import Engine


async def room(
    engine: Engine, overlay: Path, copies: int, memory_mb: float = 0.0
) -> AbstractContextManager[None]:
    """Hold room for so many copies of a disk and for memory that is written now.

    A disk counts by what it occupies, and not at all where the file system copies by reference.

    Raises (when it is entered):
        CapacityExhausted: the disk would come too close to full.
    """
    each = 0.0 if await files.can_reflink(engine.places.root) else used_bytes(overlay) / MB
    return engine.admission.reserve(round(memory_mb + copies * each, 1))
