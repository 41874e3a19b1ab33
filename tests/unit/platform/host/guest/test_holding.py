"""Outputs of commands are held in memory up to a bound for all guests together."""

from __future__ import annotations

import asyncio
import gc

import pytest
from tests.unit.platform.host.guest.conftest import Agent

from runtools.errors import Unavailable
from runtools.platform.host.guest.holding import SMALL_BYTES, Holding
from runtools.sdk.shapes.inside import ExecRequest

LARGE = 2 * SMALL_BYTES


def printing(count: int, process_id: str) -> ExecRequest:
    return ExecRequest(command=f"head -c {count} /dev/zero | tr '\\0' x", process_id=process_id)


async def soon(holding: Holding, waiting: int) -> None:
    async with asyncio.timeout(30):
        while holding.waiting != waiting:
            await asyncio.sleep(0.01)


async def test_who_comes_first_is_served_first_and_what_is_small_waits_for_nobody() -> None:
    holding = Holding(most=3 * LARGE)
    give_back = await holding.take(2 * LARGE)
    large = asyncio.ensure_future(holding.take(3 * LARGE))
    await soon(holding, 1)
    fits = asyncio.ensure_future(holding.take(LARGE))
    await soon(holding, 2)
    await holding.take(SMALL_BYTES)
    give_back()
    (await large)()
    (await fits)()
    await holding.take(3 * LARGE)


async def test_who_goes_away_leaves_nothing_taken() -> None:
    holding = Holding(most=LARGE)
    give_back = await holding.take(LARGE)
    gone, late = (asyncio.ensure_future(holding.take(LARGE)) for _ in range(2))
    await soon(holding, 2)
    gone.cancel()
    await asyncio.wait({gone})
    give_back()
    late.cancel()  # its turn has come, and it does not know yet
    await asyncio.wait({late})
    await holding.take(LARGE)


async def test_a_command_waits_until_an_earlier_output_is_nobodys_any_more(agent: Agent) -> None:
    holding = Holding(most=LARGE)
    guest = agent.client(holding=holding)
    first = await guest.exec(printing(LARGE, "prc_first"))
    second = asyncio.ensure_future(guest.exec(printing(LARGE, "prc_second")))
    await soon(holding, 1)
    assert (await guest.exec(printing(SMALL_BYTES, "prc_small"))).stdout == "x" * SMALL_BYTES
    assert first.stdout == "x" * LARGE
    del first
    gc.collect()
    assert (await second).stdout == "x" * LARGE
    await guest.close()


async def test_one_that_waits_for_too_long_is_refused_and_can_be_asked_for_again(
    agent: Agent,
) -> None:
    holding = Holding(most=LARGE, wait_seconds=0)
    guest = agent.client(holding=holding)
    first = await guest.exec(printing(LARGE, "prc_first"))
    with pytest.raises(Unavailable, match="too much output"):
        await guest.exec(printing(LARGE, "prc_second"))
    assert (await guest.exec(printing(3, "prc_small"))).stdout == "xxx"
    del first
    gc.collect()
    assert (await guest.exec(printing(LARGE, "prc_second"))).stdout == "x" * LARGE
    await guest.close()
