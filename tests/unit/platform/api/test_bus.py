"""Waiting for changes."""

from __future__ import annotations

import asyncio

import pytest

from runtools.platform.api.events import bus as bus_module
from runtools.platform.api.events.bus import Bus


class TestBus:
    async def test_a_signal_wakes_those_who_watch(self) -> None:
        bus = Bus()
        with bus.watching("a") as one, bus.watching("a") as two, bus.watching("b") as other:
            waits = [asyncio.create_task(watch.wait(30)) for watch in (one, two, other)]
            await asyncio.sleep(0)
            bus.signal("a", "unwatched")
            await asyncio.wait(waits[:2])
            assert [wait.done() for wait in waits] == [True, True, False]
            waits[2].cancel()

    async def test_one_that_came_before_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bus_module, "LOOK_AGAIN_SECONDS", 600.0)
        bus = Bus()
        with bus.watching("a") as watch:
            bus.signal("a")
            async with asyncio.timeout(60):
                await watch.wait(600)

    async def test_time_to_look_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Bus().watching("a") as watch:
            async with asyncio.timeout(60):
                await watch.wait(0.01)
                monkeypatch.setattr(bus_module, "LOOK_AGAIN_SECONDS", 0.01)
                await watch.wait(600)

    def test_nothing_is_left_behind(self) -> None:
        bus = Bus()
        with bus.watching("a"):
            pass
        bus.signal("a")
        assert vars(bus)["_watches"] == {}
