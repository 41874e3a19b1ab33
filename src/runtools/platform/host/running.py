"""The guest of a sandbox as those ask it who wake nothing: while it runs, and in which history that is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from runtools.errors import HostUnavailable
from runtools.platform.core import histories
from runtools.platform.core.states import State
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.resume import is_usable
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.silence import stopped

T = TypeVar("T")


async def running(
    box: Actor, seconds: float | None, history: str | None = None
) -> GuestClient | None:
    """The guest of a sandbox once it runs; it is not woken. None when time is up before.

    Raises:
        HistoryChanged: it is in another history by now, where one is given.
        SandboxStopped: it has ended.
        HostUnavailable: it runs, but this host could not take it over at its start.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not is_usable(box):
                if box.state is State.STOPPED:
                    raise stopped(box)
                check_history(box, history)
                await box.changed()
    check_history(box, history)
    if not is_usable(box):
        return None
    if box.guest is None:
        raise HostUnavailable(f"{box.id} could not be adopted; the host's log says why")
    return box.guest


def check_history(box: Actor, history: str | None) -> None:
    """What a process writes after a rollback is not the going on of what it wrote before."""
    now = history_of(box)
    if history and now and history != now:
        raise histories.changed(box.id, now)


async def while_running(box: Actor, asking: Coroutine[Any, Any, T]) -> T | None:
    """The answer of a guest; None when the sandbox ceased to run before it came."""
    task = asyncio.create_task(asking)
    try:
        while not task.done() and is_usable(box):
            changed = asyncio.ensure_future(box.changed())
            await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        return task.result() if task.done() else None
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def history_of(box: Actor) -> str:
    """In which of its machines it is, as users are told: a rollback begins another."""
    return str(box.record.life.number) if box.record.life is not None else ""
