"""Waiting with a run's sandbox until it can be worked in, and saying so while it lasts."""

from __future__ import annotations

from collections.abc import Callable

from runtools.errors import Conflict
from runtools.sdk.sandbox import AsyncSandbox


async def waited(sandbox: AsyncSandbox, say: Callable[[str], None], *, look: bool) -> None:
    """Wait while it is being made or waits for room, however long: a cancel and the run's time end it.

    Args:
        say: told what it waits for, whenever that is something else.
        look: whether it was refused for want of room, so that what is known of it is old.

    Raises:
        SandboxStopped: it never came to run.
        Conflict: it was paused again meanwhile: somebody does not want it to go on.
    """
    told = ""

    def tell(now: AsyncSandbox) -> None:
        nonlocal told
        if (line := _line(now)) != told:
            told = line
            say(line)

    if look:
        await sandbox.refresh()
    await sandbox.wait_until_running(on_wait=tell)
    if look and sandbox.state == "paused":
        raise Conflict(
            f"{sandbox.id} was paused before there was room for it, and nothing was done"
        )


def _line(sandbox: AsyncSandbox) -> str:
    if sandbox.queue is not None:
        return f"[the sandbox waits for room on its host: place {sandbox.queue.position}]\n"
    return f"[the sandbox is {'being made' if sandbox.state == 'creating' else 'waking'}]\n"
