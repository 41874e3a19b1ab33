"""Sandboxes by the number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from bench.floor import Vm, at_once
from runtools import RunTools
from runtools.sdk.sync.sandbox import Sandbox

T = TypeVar("T")


def born(rt: RunTools) -> Sandbox:
    """A sandbox that has answered its first command and is never paused for idleness."""
    sandbox = rt.sandboxes.create(idle_timeout_seconds=0)
    sandbox.exec("true")
    return sandbox


def destroy_all(things: Iterable[Sandbox | Vm]) -> None:
    """Destroy all, at once."""
    each_at_once(lambda thing: thing.destroy(), things)


def each_at_once(work: Callable[[T], object], things: Iterable[T]) -> None:
    """Do the work to each, all at once."""
    left = list(things)
    at_once(lambda: work(left.pop()), len(left))
