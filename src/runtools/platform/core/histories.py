"""Which course of its sandbox an offset of a process's output is of: a rollback begins another."""

from __future__ import annotations

from runtools.errors import HistoryChanged


def changed(sandbox_id: str, now: str) -> HistoryChanged:
    """What is asked for belongs to another history than the present one."""
    return HistoryChanged(
        f"{sandbox_id} went back to a snapshot, and with it the output of its processes",
        hint="read it from the start; GET …/processes names its history and where its output ends now",
        details={"history": now},
    )
