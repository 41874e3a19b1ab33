"""A network for machines that have none: it counts slots, and hands out no namespace."""

from __future__ import annotations

from collections.abc import Collection

from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.ports.network import Traffic


class NullNetwork:
    """Slots with a number and nothing else. `taken` tells a test what was not given back."""

    def __init__(self) -> None:
        self.taken: set[Slot] = set()

    async def open(self, internet: bool) -> Slot:
        """The lowest number that nobody has."""
        used = {slot.index for slot in self.taken}
        index = next(n for n in range(len(used) + 1) if n not in used)
        slot = Slot(namespace="", tap="", index=index)
        self.taken.add(slot)
        return slot

    async def adopt(self, slot: Slot, internet: bool) -> None:
        """Take note of a slot that was opened before a restart."""
        self.taken.add(slot)

    async def close(self, slot: Slot) -> None:
        """Take the slot back."""
        self.taken.discard(slot)

    def traffic(self, slot: Slot) -> Traffic | None:
        """Nothing ever flows."""
        return Traffic(received=0, sent=0) if slot in self.taken else None

    async def reclaim(self, keep: Collection[Slot]) -> int:
        """Forget all but those kept."""
        lost = self.taken - set(keep)
        self.taken -= lost
        return len(lost)
