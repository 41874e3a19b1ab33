"""A network for machines that have none: it counts slots, and hands out no namespace."""

from __future__ import annotations

from collections.abc import Collection

from runtools.errors import Unavailable
from runtools.platform.core.egress import Policy
from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.ports.network import Refused, Traffic, unheard


class NullNetwork:
    """Slots with a number and nothing else. `taken` tells a test what was not given back,
    `policies` under which policy each was last put.
    """

    def __init__(self) -> None:
        self.taken: set[Slot] = set()
        self.policies: dict[Slot, Policy] = {}

    async def open(self, policy: Policy, refused: Refused = unheard) -> Slot:
        """The lowest number that nobody has."""
        used = {slot.index for slot in self.taken}
        index = next(n for n in range(len(used) + 1) if n not in used)
        slot = Slot(namespace="", tap="", index=index)
        self.taken.add(slot)
        self.policies[slot] = policy
        return slot

    async def adopt(self, slot: Slot, policy: Policy, refused: Refused = unheard) -> None:
        """Take note of a slot that was opened before a restart."""
        self.taken.add(slot)
        self.policies[slot] = policy

    async def change(self, slot: Slot, policy: Policy) -> None:
        """Note the policy of a slot that is taken."""
        if slot not in self.taken:
            raise Unavailable(f"slot {slot.index} is not taken")
        self.policies[slot] = policy

    async def close(self, slot: Slot) -> None:
        """Take the slot back."""
        self.taken.discard(slot)

    def traffic(self, slot: Slot) -> Traffic | None:
        """Nothing ever flows."""
        return Traffic(received=0, sent=0) if slot in self.taken else None

    async def reclaim(self, keep: Collection[Slot]) -> int:
        """Forget all but those kept."""
        lost = self.taken - set(keep)
        self.taken = set(keep)
        return len(lost)
