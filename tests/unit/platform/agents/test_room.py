"""What a run's tools wait for room in their sandbox is not their time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtools.errors import WaitsForRoom
from runtools.platform.agents.tools.room import Room

LIMIT = 0.05


class Full:
    """A sandbox that sleeps, and for which there is room at last."""

    id, state, queue = "sandbox-1", "paused", None

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.lines: list[str] = []

    async def refresh(self) -> None:
        """It waits, or runs."""

    async def wait_until_running(self, on_wait: Any) -> None:
        if self.lines:
            on_wait(self)
            await self.room.wait()
            self.state = "running"

    async def act(self, _: object) -> str:
        self.lines.append("asked")
        if not self.room.is_set():
            raise WaitsForRoom("there is none")
        return "done"


async def test_the_time_of_all_goes_on_when_nobody_waits_for_room() -> None:
    box, said = Full(), []
    room = Room(lambda: asyncio.sleep(0, box))  # type: ignore[arg-type]

    async def other() -> None:
        async with room.within(LIMIT, lambda _: None):
            await asyncio.Event().wait()

    async with room.within(LIMIT, said.append):
        making = asyncio.create_task(room.made(box.act))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        beside = asyncio.create_task(other())  # begins while somebody waits
        await asyncio.sleep(4 * LIMIT)
        assert said == ["[the sandbox is waking]\n"]
        assert not beside.done()
        box.room.set()
        assert await making == "done"
    assert box.lines == ["asked", "asked"]
    with pytest.raises(TimeoutError):
        await beside


async def test_where_nobody_waits_it_is_a_limit() -> None:
    room = Room(lambda: asyncio.sleep(0, Full()))  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with room.within(LIMIT, lambda _: None):
            await asyncio.Event().wait()
