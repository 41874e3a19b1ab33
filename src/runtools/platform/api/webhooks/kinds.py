"""Which changes of a sandbox are events, and what they are called."""

from __future__ import annotations

from runtools.sdk.shapes.webhooks import EventType

Stand = tuple[str, str | None]
"""A sandbox's state and operation."""

_MOVES: dict[tuple[str, str], EventType] = {
    ("creating", "running"): "sandbox.started",
    ("running", "paused"): "sandbox.paused",
    ("paused", "running"): "sandbox.resumed",
}
_DONE: dict[str, EventType] = {
    "snapshotting": "sandbox.snapshotted",
    "rolling_back": "sandbox.rolled_back",
    "forking": "sandbox.forked",
}


def kind(before: Stand, after: Stand, *, failed: bool) -> EventType | None:
    """The event that a change is; None while it goes on, and for what came to nothing."""
    if after[0] == "stopped":
        return None if before[0] == "stopped" else "sandbox.stopped"
    if (before[0], after[0]) in _MOVES:
        return _MOVES[before[0], after[0]]
    if after[1] is None and before[1] is not None and not failed:
        return _DONE.get(before[1])
    return None
