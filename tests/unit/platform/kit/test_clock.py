"""Bounds by a clock."""

from __future__ import annotations

import asyncio

import pytest

from runtools.platform.kit.clock import within
from runtools.testing.clock import ManualClock


async def waiting_for_ever(clock: ManualClock) -> asyncio.Task[None]:
    """What waits without end, within ten seconds."""
    waits = asyncio.Event()

    async def wait() -> None:
        async with within(clock, 10):
            waits.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waits.wait()
    return task


async def test_what_is_done_in_time_is_left_alone() -> None:
    clock = ManualClock()
    async with within(clock, 10):
        clock.advance(9)
        await asyncio.sleep(0)
    clock.advance(100)
    await asyncio.sleep(0)


async def test_what_is_not_is_cancelled() -> None:
    clock = ManualClock()
    task = await waiting_for_ever(clock)
    clock.advance(10)
    with pytest.raises(TimeoutError):
        await task


async def test_whoever_else_cancels_is_told_from_it() -> None:
    clock = ManualClock()
    task = await waiting_for_ever(clock)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
