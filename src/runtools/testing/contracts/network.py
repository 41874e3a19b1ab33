"""What every network must do. A test module subclasses `NetworkContract` and gives it ``nets``.

What a sandbox may reach through a slot is a matter of real packets, and tested with real machines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from runtools.errors import Unavailable
from runtools.platform.core.egress import OPEN, SHUT, policy
from runtools.platform.core.ports.network import Network


@dataclass(frozen=True)
class NetworkRig:
    """One installation's network.

    Attributes:
        network: whom the suite is about; no slot of it is taken.
        restarted: the same installation's network as a fresh host process would make it.
    """

    network: Network
    restarted: Callable[[], Awaitable[Network]]


class NetworkContract:
    """Slots are nobody else's, are given back, and are found again."""

    async def test_a_slot_is_nobody_elses(self, nets: NetworkRig) -> None:
        slots = await asyncio.gather(
            *(nets.network.open(OPEN if n % 2 else SHUT) for n in range(4))
        )
        assert len({slot.index for slot in slots}) == 4
        assert len({slot.namespace for slot in slots}) in {1, 4}  # 1: none has one

    async def test_a_slot_can_be_given_back_twice(self, nets: NetworkRig) -> None:
        slot = await nets.network.open(OPEN)
        await nets.network.close(slot)
        await nets.network.close(slot)

    async def test_traffic_is_counted_while_there_is_a_slot(self, nets: NetworkRig) -> None:
        slot = await nets.network.open(OPEN)
        counted = nets.network.traffic(slot)
        assert counted is not None
        assert min(counted.received, counted.sent) >= 0
        await nets.network.close(slot)
        assert nets.network.traffic(slot) is None

    async def test_the_policy_of_a_slot_can_be_changed(self, nets: NetworkRig) -> None:
        slot = await nets.network.open(OPEN)
        for rules in (SHUT, policy(True, ["203.0.113.0/24"], []), OPEN):
            await nets.network.change(slot, rules)
        await nets.network.close(slot)
        with pytest.raises(Unavailable):
            await nets.network.change(slot, SHUT)

    async def test_a_slot_in_use_is_not_given_again(self, nets: NetworkRig) -> None:
        first, second = [await nets.network.open(SHUT) for _ in range(2)]
        await nets.network.close(first)
        third = await nets.network.open(SHUT)
        assert third.index != second.index

    async def test_only_what_nobody_keeps_is_reclaimed(self, nets: NetworkRig) -> None:
        kept, lost = [await nets.network.open(OPEN) for _ in range(2)]
        again = await nets.restarted()
        await again.adopt(kept, OPEN)
        assert await again.reclaim({kept}) == 1
        assert await again.reclaim({kept}) == 0
        assert (await again.open(OPEN)).index != kept.index
        await again.close(lost)

    async def test_after_a_restart_an_adopted_slot_is_taken(self, nets: NetworkRig) -> None:
        slot = await nets.network.open(SHUT)
        again = await nets.restarted()
        await again.adopt(slot, SHUT)
        await again.reclaim({slot})
        assert (await again.open(SHUT)).index != slot.index
        await again.close(slot)
        await again.reclaim(())
        assert await again.reclaim(()) == 0

    async def test_the_number_of_a_kept_slot_is_nobody_elses_until_it_is_closed(
        self, nets: NetworkRig
    ) -> None:
        slot = await nets.network.open(SHUT)
        await nets.network.close(slot)
        again = await nets.restarted()
        await again.reclaim({slot})
        opened = [await again.open(SHUT) for _ in range(2)]
        assert slot.index not in {one.index for one in opened}
        await again.close(slot)
        assert all(again.traffic(one) is not None for one in opened)
        for one in opened:
            await again.close(one)
