"""The clock of a machine that was slow to take the time is set again, and again no more than that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runtools.platform.host.engine import meeting
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.guest.identity import Evidence, Identity
from runtools.platform.kit.clock import SystemClock


@dataclass
class Slow:
    """A guest whose clock is late by so much, renewal by renewal."""

    late: list[float]
    asked: list[Identity] = field(default_factory=list)

    async def renew(self, identity: Identity) -> Evidence:
        self.asked.append(identity)
        now = SystemClock().now().timestamp()
        keys = {kind: key.blob for kind, key in identity.host_keys.items()}
        return Evidence(
            nonce=identity.nonce,
            machine=True,
            clock=now - self.late[len(self.asked) - 1],
            reseeded=True,
            machine_id=identity.machine_id,
            hostname=identity.hostname,
            host_keys=keys,
            skipped=[],
        )


async def meet(guest: Slow) -> None:
    async def lives_on(_: object) -> None:
        await asyncio.Event().wait()

    engine = SimpleNamespace(driver=SimpleNamespace(watch=lives_on), clock=SystemClock())
    who = Identity.make(hostname="box", env={}, ssh_keys=[], password_hash=None, fresh=True)
    machine: Any = None
    await meeting.meet(cast(Engine, engine), machine, cast(GuestClient, guest), who, 5.0)


@pytest.mark.parametrize(("late", "renewals"), [([0.05], 1), ([0.6, 0.02], 2), ([0.6] * 9, 3)])
async def test_a_machine_is_told_the_time_until_it_has_it(late: list[float], renewals: int) -> None:
    guest = Slow(late)
    await meet(guest)
    assert len(guest.asked) == renewals
    assert [each.fresh for each in guest.asked] == [True] + [False] * (renewals - 1)
    assert len({each.nonce for each in guest.asked}) == renewals
    assert len({each.entropy for each in guest.asked}) == renewals
