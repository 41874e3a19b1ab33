"""Random acts and random kills: after each start nothing is lost, half-made or owned twice.

The seed is printed; ``RT_TEST_SEED`` plays a round again, ``RT_TEST_ROUNDS`` plays more.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from tests.flow.host.conftest import fresh, order, sandbox_id
from tests.flow.host.crashing import Daemon, gone_or_refused

from runtools.platform.core.ports.host import Child

ROUNDS = int(os.environ.get("RT_TEST_ROUNDS", "25"))
_ACTS = ("pause", "resume", "exec", "snapshot", "rollback", "fork", "destroy")
MOST = 5  # sandboxes at once: the machine that runs the tests may be small


class Chaos:
    """Acts on whatever there is, until the host is gone."""

    def __init__(self, daemon: Daemon, dice: random.Random) -> None:
        self.daemon, self.host, self.dice = daemon, daemon.host, dice
        self.snapshots: dict[str, list[str]] = {}
        self.keeper = ""

    def living(self) -> list[str]:
        return [
            one.sandbox_id
            for one in self.daemon.records().values()
            if one.state != "stopped" and one.sandbox_id != self.keeper
        ]

    async def reign(self) -> None:
        """Several actors at once, each doing one thing after the other."""
        await asyncio.gather(*(self._act_on() for _ in range(3)))

    async def _act_on(self) -> None:
        while True:
            said = await gone_or_refused(self._one())
            if said == "cut off":
                return

    def _one(self):
        there = self.living()
        if not there or (len(there) < MOST and self.dice.random() < 0.3):
            return self.host.create(order())
        box, op = self.dice.choice(there), fresh("op")
        kept = self.snapshots.setdefault(box, [])
        match self.dice.choice(_ACTS):
            case "exec":
                return self.daemon.sh(box, "date > /workspace/x")
            case "snapshot":
                kept.append(fresh("snp_"))
                return self.host.snapshot(box, op, "key_test", kept[-1])
            case "rollback" if kept:
                return self.host.rollback(box, op, "key_test", self.dice.choice(kept))
            case "fork" if len(there) < MOST:
                child = Child(sandbox_id=sandbox_id())
                return self.host.fork(box, op, "key_test", [child])
            case "destroy" if len(there) > 2:
                return self.host.destroy(box, op, "key_test")
            case "resume":
                return self.host.resume(box, op, "key_test")
            case _:
                return self.host.pause(box, op, "key_test")


@pytest.fixture
async def daemon(home):
    made = Daemon(home)
    yield made
    await made.close()


async def test_random_kills_are_survived(daemon):
    seed = int(os.environ.get("RT_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"RT_TEST_SEED={seed}")  # noqa: T201 - what a person needs to play it again
    chaos = Chaos(daemon, random.Random(seed))
    await daemon.start()
    chaos.keeper = (await daemon.host.create(order())).sandbox_id
    pid = await daemon.sh(chaos.keeper, "sleep 10000 >/dev/null 2>&1 & echo $!")
    for number in range(ROUNDS):
        reign = asyncio.ensure_future(chaos.reign())
        await asyncio.sleep(chaos.dice.uniform(0.02, 0.6))  # the moment of the kill is the test
        await daemon.kill()
        await reign
        await daemon.start()
        try:
            await daemon.check()
            assert await daemon.sh(chaos.keeper, "pgrep sleep") == pid
        except AssertionError as exc:
            raise AssertionError(f"round {number}, seed {seed}: {exc}") from exc
