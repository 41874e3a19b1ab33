"""What fits on a host: pure rules over memory, count and disk.

Memory is counted at a factor, because a guest rarely touches all that it was promised. Disk is
counted as what the machine may still have to write: its memory (a pause saves it) at the same factor.
Overlays are sparse and count by what lies on the disk already, which is in the free space itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from runtools.platform.host.disk import room

MB = 2**20
DISK = "MB of disk above the headroom"


@dataclass(frozen=True, slots=True)
class Budget:
    """What sandboxes may take in all."""

    memory_mb: float
    sandboxes: int
    headroom_mb: float


@dataclass(frozen=True, slots=True)
class Load:
    """What sandboxes take, or one asks for: counted megabytes, not promised ones."""

    memory_mb: float = 0.0
    sandboxes: int = 0

    def plus(self, other: Load) -> Load:
        """Both together."""
        return Load(self.memory_mb + other.memory_mb, self.sandboxes + other.sandboxes)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something does not fit: what ran out, how much was asked, how much is free.

    ``ahead``: how many wait already, for one that would fit and must not overtake them.
    """

    what: str
    asked: float
    free: float
    hint: str
    ahead: int = 0

    @property
    def words(self) -> str:
        """As a sentence says it."""
        return f"asked for {self.asked:g} {self.what}, {self.free:g} free"

    @property
    def details(self) -> dict[str, Any]:
        """As an error carries it."""
        return {"what": self.what, "asked": self.asked, "free": self.free}


def load_of(memory_mb: int, factor: float, count: int = 1) -> Load:
    """What so many sandboxes of a size are counted as."""
    return Load(memory_mb * factor * count, count)


def refusal(budget: Budget, taken: Load, free_disk_mb: float, ask: Load) -> Refusal | None:
    """Why the ask does not fit beside what is taken, or None where it does."""
    if taken.sandboxes + ask.sandboxes > budget.sandboxes:
        free = max(0, budget.sandboxes - taken.sandboxes)
        hint = "pause or destroy a sandbox, or raise the setting max_sandboxes"
        return Refusal("sandboxes", ask.sandboxes, free, hint)
    if taken.memory_mb + ask.memory_mb > budget.memory_mb:
        free_mb = max(0.0, budget.memory_mb - taken.memory_mb)
        hint = "pause or destroy a sandbox, ask for less memory, or lower memory_factor"
        return Refusal("MB of memory (as counted)", ask.memory_mb, free_mb, hint)
    return disk_refusal(budget, taken, free_disk_mb, ask.memory_mb)


def waits(budget: Budget, taken: Load, ask: Load, ahead: int) -> Refusal:
    """Why an ask that fits does not come in all the same: others came before it."""
    free_mb = max(0.0, budget.memory_mb - taken.memory_mb)
    hint = "try again when they have come in, or pause or destroy a sandbox to let them in sooner"
    return Refusal("MB of memory (as counted)", ask.memory_mb, free_mb, hint, ahead)


def disk_refusal(
    budget: Budget, taken: Load, free_disk_mb: float, asked_mb: float
) -> Refusal | None:
    """Why so much disk is not free beside the headroom and what the running may still write."""
    free_mb = free_disk_mb - budget.headroom_mb - taken.memory_mb
    if asked_mb <= free_mb:
        return None
    return Refusal(DISK, asked_mb, max(0.0, free_mb), room.HINT)


def never(budget: Budget, ask: Load) -> Refusal | None:
    """Why the ask would not even fit on the empty host; None where waiting may help."""
    return refusal(budget, Load(), float("inf"), ask)


def estimate(position: int, holds: Collection[float], running: int) -> float | None:
    """Seconds until the waiter at a position (1 is next) may start; None where nobody can tell.

    ``running`` machines, each held for about the mean of the recent ``holds``, end one after the
    other at evenly spread moments.
    """
    if not holds:
        return None
    mean = sum(holds) / len(holds)
    return position * mean / max(1, running)
