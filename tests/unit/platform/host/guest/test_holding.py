"""Outputs of commands are held in memory up to a bound for all guests together."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace

import pytest
from tests.unit.platform.host.guest.conftest import HURRIED, Agent, Impostor, until

from runtools.errors import GuestMisbehaved, Unavailable
from runtools.guest import protocol
from runtools.guest.protocol import BYTES, JSON
from runtools.platform.host.guest.holding import (
    MOST_BYTES,
    SHARE_BYTES,
    SMALL_BYTES,
    Holding,
    Outputs,
    Share,
)
from runtools.platform.host.guest.patience import Patience
from runtools.sdk.shapes.inside import MAX_OUTPUT_BYTES, ExecRequest

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
    with pytest.raises(Unavailable, match="so much output"):
        await guest.exec(printing(LARGE, "prc_second"))
    assert (await guest.exec(printing(3, "prc_small"))).stdout == "xxx"
    del first
    gc.collect()
    assert (await guest.exec(printing(LARGE, "prc_second"))).stdout == "x" * LARGE
    await guest.close()


async def test_what_one_guest_claims_beyond_its_share_waits_behind_itself_alone() -> None:
    whole = Holding(most=4 * LARGE)
    greedy, other = (Share(whole, most=2 * LARGE) for _ in range(2))
    first, _ = [await greedy.take(LARGE) for _ in range(2)]
    more = asyncio.ensure_future(greedy.take(2 * LARGE))
    await until(lambda: greedy.waiting == 1)
    assert whole.waiting == 0
    (await other.take(2 * LARGE))()
    more.cancel()
    await asyncio.wait({more})
    first()
    (
        await greedy.take(LARGE)
    )()  # who went away left nothing taken, and what was given back is there
    assert greedy.waiting == 0


async def test_who_waits_for_the_whole_in_vain_leaves_nothing_of_its_share_taken() -> None:
    whole = Holding(most=LARGE, wait_seconds=0)
    give_back = await whole.take(LARGE)
    share = Share(whole, most=LARGE)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await share.take(LARGE)
    give_back()
    (await share.take(LARGE))()
    await whole.take(LARGE)


async def test_all_that_is_waited_for_is_waited_for_once() -> None:
    """Of the guest, of the org and of the host: whoever comes with his time over is told at once."""
    host = Holding(most=2 * LARGE, wait_seconds=1000)
    org = Share(host, most=2 * LARGE)
    guest = Share(org, most=2 * LARGE)
    over = asyncio.get_running_loop().time() - 1
    for full in (host, org, guest):
        give_back = await full.take(LARGE + 1)
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable, match="for 1000 s there was no room"):
                await guest.take(LARGE, over)
        give_back()
    (await guest.take(2 * LARGE, over))()  # what is there is taken, whatever the time


async def test_the_wait_for_room_is_none_for_the_agent(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = printing(LARGE, "prc_waits").model_copy(update={"timeout_ms": 12_345})
    limits, timeout = [], asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        made = timeout(seconds)
        if seconds == 12.345 + Patience().grace:
            limits.append(made)
        return made

    monkeypatch.setattr(asyncio, "timeout", noted)
    holding = Holding(most=LARGE)
    guest = agent.client(holding=holding)
    give_back = await holding.take(LARGE)
    running = asyncio.ensure_future(guest.exec(request))
    await soon(holding, 1)
    (limit,) = limits
    assert limit.when() is None
    give_back()
    assert (await running).stdout == "x" * LARGE
    assert limit.when() is not None
    await guest.close()


def test_a_share_is_a_small_part_and_holds_the_largest_output() -> None:
    assert 2 * MAX_OUTPUT_BYTES <= SHARE_BYTES <= MOST_BYTES // 8


async def test_many_guests_of_one_org_leave_half_of_it_to_others() -> None:
    outputs, half = Outputs(), SHARE_BYTES // 2
    guests = [Share(outputs.of("org_greedy")) for _ in range(MOST_BYTES // SHARE_BYTES)]
    # All of it, if nobody stopped them.
    asked = [asyncio.ensure_future(guest.take(half)) for guest in guests for _ in range(2)]
    await until(lambda: outputs.of("org_greedy").waiting == len(guests))
    others = [Share(outputs.of("org_other")) for _ in range(4)]
    for other in others:
        await asyncio.wait_for(other.take(SHARE_BYTES), 60)
    assert outputs.of("org_other").waiting == 0
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)


def announcing(count: int) -> bytes:
    ran = {"exit_code": 0, "signal": None, "duration_ms": 1.0, "timed_out": False}
    ran |= {"truncated": False, "stdout": count, "stderr": 0}
    return protocol.frame(JSON, json.dumps({"ok": ran}).encode())


async def test_a_guest_that_only_announces_makes_no_other_wait(
    impostor: Impostor, agent: Agent
) -> None:
    impostor.answers(announcing(LARGE))
    holding = Holding(most=3 * LARGE)
    hostile = impostor.client(Patience(), holding)
    hostile._share = Share(holding, most=2 * LARGE)
    asked = [asyncio.ensure_future(hostile.exec(printing(LARGE, f"prc_{n}"))) for n in range(5)]
    await until(lambda: hostile._share.waiting == 3)
    guest = agent.client(holding=holding)
    assert (await guest.exec(printing(LARGE, "prc_honest"))).stdout == "x" * LARGE
    await guest.close()
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)


@pytest.mark.parametrize("silent", [True, False])
async def test_an_output_that_does_not_come_at_a_pace_is_given_up_with_its_room(
    impostor: Impostor, silent: bool
) -> None:
    async def act(_: Impostor, writer: asyncio.StreamWriter) -> None:
        writer.write(announcing(LARGE))
        while not silent:
            writer.write(protocol.frame(BYTES, b"x" * 1024))  # fast enough for a stream
            await asyncio.sleep(0.01)

    impostor.act = act
    holding = Holding(most=LARGE)
    patient = replace(HURRIED, output=0.0, stall=60.0, grace=60.0)
    with pytest.raises(GuestMisbehaved, match="far too slowly"):
        await impostor.client(patient, holding).exec(printing(LARGE, "prc_slow"))
    (await holding.take(LARGE))()
