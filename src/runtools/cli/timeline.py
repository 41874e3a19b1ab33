"""A sandbox's ledger as a story: one step for each thing that happened, in words.

The ledger has an entry when an act begins (``operation`` set) and one when it is over. A story has
one step for both, at the end, with how long it took; only what is still going on, or never came to
its end, shows by its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest

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
_FAILED = {
    "pausing": "could not be paused",
    "resuming": "could not be woken",
    "snapshotting": "its state could not be kept",
    "rolling_back": "could not be rolled back",
    "forking": "could not be forked",
    "destroying": "could not be destroyed",
}
_CAUSES = {
    "idle": "nothing happened for its idle time",
    "lifetime": "its lifetime was over",
    "disk_low": "the host's disk was about to fill",
    "isolation": "it was emulated, and its host is to run nothing so",
    "shutdown": "the platform was taken down",
    "vmm_exit": "its virtual machine ended by itself",
    "host_restart": "the machine or the platform was restarted",
    "start_failed": "it could not be started",
}
_GAP_SECONDS = 60.0
_TOOK_SECONDS = 0.005
# Told in the words of a step, or of no interest to people.
_SILENT = {"born", "ending", "failed", "ledger", "parent", "parentId", "startedFrom"}


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
    for entry, following in zip_longest(ordered, ordered[1:]):
        if entry.operation is not None and following is not None and _goes_on(entry, following):
            begun = begun if begun and begun.operation == entry.operation else entry
            continue
        yield _step(entry, begun, shown)
        shown, begun = entry, None


def _goes_on(entry: LedgerEntry, following: LedgerEntry) -> bool:
    """Whether the following entry tells the same thing, further on."""
    same = following.operation in (None, entry.operation)
    return same or (entry.operation == "queued" and following.operation == "starting")


def _step(entry: LedgerEntry, begun: LedgerEntry | None, shown: LedgerEntry | None) -> Step:
    quiet = words.between(shown.at, (begun or entry).at) if shown else 0.0
    return Step(
        entry,
        _what(entry, begun) + _reason(entry, shown) + _took(entry, begun),
        words.span(quiet) if quiet >= _GAP_SECONDS else None,
        list(_notes(entry, shown)),
    )


def _what(entry: LedgerEntry, begun: LedgerEntry | None) -> str:
    if entry.operation is not None:
        return _BEGUN[entry.operation]
    if entry.state == "stopped":
        return "destroyed" if entry.cause == "request" else "stopped"
    operation = begun.operation if begun else None
    if operation is None:
        return {"creating": "was asked for", "paused": "paused"}.get(entry.state, "runs")
    if "failed" in entry.detail:
        return _FAILED.get(operation, "failed")
    origin = words.ORIGINS.get(str(entry.detail.get("startedFrom")))
    first = operation in ("queued", "starting") and origin
    return f"{_DONE[operation]}, {origin}" if first else _DONE[operation]


def _reason(entry: LedgerEntry, shown: LedgerEntry | None) -> str:
    """Why; who asked is told when it was not the one who asked before."""
    if entry.cause != "request":
        return f": {_CAUSES[entry.cause]}"
    if not entry.actor or (shown is not None and shown.actor == entry.actor):
        return ""
    return f", asked by {entry.actor}"


def _took(entry: LedgerEntry, begun: LedgerEntry | None) -> str:
    seconds = words.between(begun.at, entry.at) if begun and entry.operation is None else 0.0
    return f" ({words.span(seconds)})" if seconds >= _TOOK_SECONDS else ""


def _notes(entry: LedgerEntry, shown: LedgerEntry | None) -> Iterator[str]:
    ending = entry.detail.get("ending")
    if isinstance(ending, dict) and entry.cause != "request":
        yield str(ending.get("reason", ""))
    if "failed" in entry.detail:
        yield str(entry.detail["failed"])
    known = shown.detail if shown else {}
    for name, value in entry.detail.items():
        plain = isinstance(value, (str, int, float)) and value not in ("", False)
        if plain and name not in _SILENT and known.get(name) != value:
            yield f"{_spaced(name)}: {value}"


def _spaced(name: str) -> str:
    """``standstillMs`` as ``standstill ms``."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).replace("_", " ")
