"""A sandbox's ledger as a story: one step for each thing that happened, in words.

The ledger has an entry when an act begins (``operation`` set) and one when it is over. A story has
one step for both, at the end, with how long it took; only what is still going on, or never came to
its end, shows by its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from runtools.cli import words
from runtools.sdk.shapes import LedgerEntry

MARKS = {"creating": "○", "running": "●", "paused": "◐", "stopped": "■"}
_BEGUN = {
    "queued": "waits for room",
    "starting": "is being started",
    "pausing": "is being paused",
    "resuming": "is being woken",
    "snapshotting": "its state is being kept",
    "rolling_back": "is being rolled back",
    "forking": "is being forked",
    "destroying": "is being destroyed",
}
_DONE = {
    "queued": "runs",
    "starting": "runs",
    "pausing": "paused",
    "resuming": "woke up",
    "snapshotting": "its state was kept",
    "rolling_back": "rolled back",
    "forking": "was forked",
    "destroying": "destroyed",
}
_CAUSES = {
    "idle": "nothing happened for its idle time",
    "lifetime": "its lifetime was over",
    "disk_low": "the host's disk was about to fill",
    "shutdown": "the platform was taken down",
    "vmm_exit": "its virtual machine ended by itself",
    "host_restart": "the machine or the platform was restarted",
    "start_failed": "it could not be started",
}
_GAP_SECONDS = 60.0
_TOOK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened. ``gap`` is the quiet time before it, where it was long."""

    entry: LedgerEntry
    what: str
    gap: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def at(self) -> datetime:
        """When it was over."""
        return self.entry.at

    @property
    def state(self) -> str:
        """The state it led to."""
        return self.entry.state

    @property
    def mark(self) -> str:
        """The sign of that state."""
        return MARKS[self.entry.state]


def steps(entries: Sequence[LedgerEntry]) -> Iterator[Step]:
    """The story, oldest first."""
    ordered = sorted(entries, key=lambda entry: entry.seq)
    begun: LedgerEntry | None = None
    shown: LedgerEntry | None = None
    for entry, following in zip(ordered, [*ordered[1:], None], strict=True):
        if entry.operation is not None and following is not None and _goes_on(entry, following):
            begun = begun if begun and begun.operation == entry.operation else entry
            continue
        yield _step(entry, begun, shown)
        shown, begun = entry, None


def _goes_on(entry: LedgerEntry, following: LedgerEntry) -> bool:
    """Whether the following entry tells the same thing, further on."""
    return following.operation is None or following.operation == entry.operation


def _step(entry: LedgerEntry, begun: LedgerEntry | None, shown: LedgerEntry | None) -> Step:
    if entry.operation is not None:
        what = _BEGUN[entry.operation]
    elif begun is not None and begun.operation is not None and _came_about(entry, begun):
        what = _DONE[begun.operation]
    else:
        what = {"creating": "was asked for", "running": "runs", "paused": "paused"}.get(
            entry.state, "stopped"
        )
    since = begun.at if begun else entry.at
    quiet = words.between(shown.at, since) if shown else 0.0
    return Step(
        entry,
        what + _reason(entry, begun) + _took(entry, begun),
        words.span(quiet) if quiet >= _GAP_SECONDS else None,
        [f"{_spaced(name)}: {value}" for name, value in entry.detail.items() if _is_told(value)],
    )


def _came_about(entry: LedgerEntry, begun: LedgerEntry) -> bool:
    return entry.state != "stopped" or begun.operation == "destroying"


def _reason(entry: LedgerEntry, begun: LedgerEntry | None) -> str:
    cause = entry.cause if entry.cause != "request" or begun is None else begun.cause
    if cause == "request":
        actor = entry.actor or (begun.actor if begun else "")
        return f", asked by {actor}" if actor else ""
    return f": {_CAUSES[cause]}"


def _took(entry: LedgerEntry, begun: LedgerEntry | None) -> str:
    seconds = words.between(begun.at, entry.at) if begun and entry.operation is None else 0.0
    return f" ({words.span(seconds)})" if seconds >= _TOOK_SECONDS else ""


def _is_told(value: object) -> bool:
    return isinstance(value, (str, int, float)) and value not in ("", False)


def _spaced(name: str) -> str:
    """``standstillMs`` as ``standstill ms``."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).replace("_", " ")
