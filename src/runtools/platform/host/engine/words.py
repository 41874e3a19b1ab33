"""What is said of an end: pure text, in words that help the person who asks why."""

from __future__ import annotations

import signal

from runtools.platform.core.ports.driver import Exit
from runtools.sdk.shapes.sandboxes import LedgerEntry

_TAIL_LINES = 20
_LINE_CHARS = 400
_PAUSES = {
    "idle": "because nothing went on in it",
    "lifetime": "because it had run for as long as it may",
    "disk_low": "because its host's disk was almost full",
    "isolation": "because it was emulated, and its host is to run nothing so",
    "shutdown": "because the platform went down",
    "host_restart": "because its host was restarted",
}


def why_paused(entry: LedgerEntry) -> str:
    """The end of a sentence that says that it was paused."""
    return _PAUSES.get(entry.cause, f"by {entry.actor}")


def how_it_ended(end: Exit) -> str:
    """One sentence from what the driver saw."""
    if end.stuck is not None:
        said = f"its virtual machine monitor could not go on and was ended: {end.stuck}"
    elif end.out_of_memory is not None:
        said = f"its virtual machine monitor ran out of memory: {end.out_of_memory}"
    elif end.signal is not None:
        try:
            name = signal.Signals(end.signal).name
        except ValueError:
            name = f"signal {end.signal}"
        said = f"its virtual machine monitor was ended by {name}"
        if end.signal == signal.SIGKILL:
            said += " (somebody on the host, or the kernel when memory ran out)"
        elif end.signal == signal.SIGBUS:
            said += " (the host's disk was full)"
    elif end.code == 0:
        said = "the machine was powered off or restarted from inside"
    elif end.code is not None:
        said = f"its virtual machine monitor ended with code {end.code}"
    else:
        said = "its virtual machine monitor is gone, and nobody saw how it ended"
    if end.messages and end.code != 0:
        said += f": {end.messages[-1][:_LINE_CHARS]}"
    return said


def tail(lines: tuple[str, ...] | list[str]) -> list[str]:
    """The end of a console, bounded both ways."""
    return [line[:_LINE_CHARS] for line in lines[-_TAIL_LINES:]]
