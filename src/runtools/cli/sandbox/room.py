"""Waiting with a sandbox for room on its host, and saying so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from runtools.cli import output, words
from runtools.errors import WaitsForRoom

if TYPE_CHECKING:
    from runtools.sdk.sync.sandbox import Sandbox

T = TypeVar("T")


def progress(sandbox: Sandbox) -> str:
    """What a sandbox that does not run yet is waiting for."""
    ref = sandbox.name or sandbox.id
    if sandbox.queue is None:
        return f"{ref} is {'starting' if sandbox.state == 'creating' else 'waking'}"
    return f"{ref} waits for room: {words.place(sandbox.queue)}"


def telling(say: Callable[[str], None]) -> Callable[[Sandbox], None]:
    """What says how a sandbox comes on, and once what can be done where it waits for room."""
    told = False

    def tell(sandbox: Sandbox) -> None:
        nonlocal told
        if sandbox.queue is not None and not told:
            told = True
            act = "destroy" if sandbox.state == "creating" else "pause"
            end = f"runtools sandbox {act} {sandbox.name or sandbox.id}"
            output.note(f"{progress(sandbox)}; after Ctrl-C it waits on, until `{end}`")
        say(progress(sandbox))

    return tell


def when_there_is_room(sandbox: Sandbox, call: Callable[[], T]) -> T:
    """What a call gives that wakes the sandbox. One that was not begun for want of room is made again."""
    while True:
        try:
            return call()
        except WaitsForRoom:
            with output.working(progress(sandbox.refresh())) as say:
                sandbox.wait_until_running(on_wait=telling(say))
            if sandbox.state == "paused":  # somebody does not want it to go on
                raise
