"""How hosts look to people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from runtools.cli import words
from runtools.cli.tables import table
from runtools.sdk.shapes import HostView


def hosts(found: Sequence[HostView]) -> RenderableType:
    """Hosts, a line each: what they run sandboxes with, how many, and what is free."""
    if not found:
        return Text("no hosts; `runtools up` starts one", style="bright_black")
    counted = ("RUNNING", "PAUSED", "WAITING", "VCPUS", "FREE MEMORY", "FREE DISK")
    made = table("HOST", "STATE", "DRIVER", "ISOLATION", *counted, right=counted)
    for one in found:
        memory = f"{words.megabytes(one.memory_free_mb)} of {words.megabytes(one.memory_total_mb)}"
        made.add_row(
            words.harmless(one.name),
            Text("here", "green") if one.alive else Text("away", "red"),
            f"{one.driver} ({one.accelerator})",
            one.isolation,
            str(one.sandboxes_running),
            str(one.sandboxes_paused),
            str(one.queued),
            str(one.vcpus),
            memory,
            words.size(one.disk_free_bytes),
        )
    return made
