"""The worker's side of the worker port, as the loop sees it: calls that are answered, and deltas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from runtools.platform.core.ports.worker import Assignment, Earlier, NewEvent, News, Placed
from runtools.sdk.shapes.runs import DeltaType


class LinkLost(Exception):
    """The connection to the api is gone, or the run is somebody else's now: leave everything as it is."""


class Link(Protocol):
    """What a worker can say of a run that it holds.

    Every call raises `LinkLost` where the lease is not the latest any more or the connection is gone, and
    another `RunToolsError` where the api refuses.
    """

    async def take(self, run_id: str, lease: int) -> Assignment:
        """Take a run that was offered."""
        ...

    async def append(
        self,
        run_id: str,
        lease: int,
        events: Sequence[NewEvent],
        *,
        seen: int | None = None,
        wait: bool = False,
        left: Sequence[str] = (),
    ) -> News:
        """Append events in one transaction; answered with what stands under their keys.

        Args:
            seen: append nothing where others have appended after this number; what they did is the answer.
            wait: let go of the run until it is woken.
            left: processes that could not be ended: the api's to end, whatever is appended.
        """
        ...

    async def read(self, run_id: str, lease: int, after: int) -> News:
        """The log after a number, or a piece of it, and whether to cancel."""
        ...

    async def earlier(self, run_id: str, lease: int, after_run: str, after: int) -> Earlier:
        """What the thread's runs before this one said, after an event of theirs."""
        ...

    async def place(self, run_id: str, lease: int) -> Placed:
        """The run's sandbox, made where there is none yet."""
        ...

    async def secret(self, run_id: str, lease: int, name: str, server: str | None = None) -> str:
        """A secret that this run's agent may use, for the MCP server of that name or for ourselves."""
        ...

    async def release(self, run_id: str, lease: int, *, ending: bool = False) -> None:
        """Give a run back that is not at its end: it is offered anew. ``ending``: for the worker ends."""
        ...

    def delta(self, run_id: str, lease: int, kind: DeltaType, data: Mapping[str, Any]) -> None:
        """A live piece for whoever is reading. Never waits, and is not kept."""
        ...
