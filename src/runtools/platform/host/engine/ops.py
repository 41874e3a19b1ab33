"""Every mutating call carries an op id; a repeat is answered from here and not done again.

A result is written before the journal says that the act has ended, so that there is no moment at
which an act is over and its repeat unknown. A call whose twin is under way joins it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from runtools.errors import IdempotencyMismatch, RunToolsError, from_wire
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.files import write_atomic

M = TypeVar("M", bound=BaseModel)

KEPT_SECONDS = 48 * 3600.0
KEPT_COUNT = 20_000


class Ops:
    """Results of acts by op id, on disk; acts under way, in memory."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._under_way: dict[str, tuple[str, asyncio.Task[Any]]] = {}

    async def once(self, op: str, what: str, kind: type[M], do: Callable[[], Awaitable[M]]) -> M:
        """The result of the act that the op names: kept, joined, or done now.

        ``what`` says which act on what it is. The act goes on when the caller is cancelled.

        Raises:
            IdempotencyMismatch: the op was used before for something else.
        """
        joined = self._under_way.get(op)
        if joined is not None:
            _same(op, joined[0], what)
            result: M = await asyncio.shield(joined[1])
            return result
        kept = self._kept(op, what)
        if kept is not None:
            if "error" in kept:
                raise from_wire(kept["error"])
            return kind.model_validate(kept["result"])
        task = asyncio.ensure_future(do())
        self._under_way[op] = (what, task)
        task.add_done_callback(lambda done: self._over(op, done))
        return await asyncio.shield(task)

    def keep(self, op: str, what: str, result: BaseModel | RunToolsError) -> None:
        """Write down how an act ended; called by the act itself, before it commits its end."""
        if not op:
            return
        body: dict[str, Any] = {"what": what}
        if isinstance(result, RunToolsError):
            body["error"] = result.to_wire()
        else:
            body["result"] = result.model_dump(mode="json")
        write_atomic(self._file(op), json.dumps(body).encode(), durable=False)

    def withdraw(self, op: str) -> None:
        """Forget how an act ended: the end could not be committed, and a repeat must not be told of it."""
        if op:
            self._file(op).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove results that are too old or too many; returns how many."""
        files: list[tuple[float, Path]] = []
        for file in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # withdrawn meanwhile
                files.append((file.stat().st_mtime, file))
        files.sort(reverse=True)
        oldest = self._clock.now().timestamp() - KEPT_SECONDS
        gone = [file for n, (at, file) in enumerate(files) if n >= KEPT_COUNT or at < oldest]
        for file in gone:
            file.unlink(missing_ok=True)
        return len(gone)

    def _kept(self, op: str, what: str) -> dict[str, Any] | None:
        try:
            body: dict[str, Any] = json.loads(self._file(op).read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):  # the latter: a power loss took its bytes
            return None
        _same(op, body["what"], what)
        return body

    def _file(self, op: str) -> Path:
        # An op id comes from a caller's idempotency key: it must not name a path.
        return self._folder / f"{hashlib.sha256(op.encode()).hexdigest()[:40]}.json"

    def _over(self, op: str, task: asyncio.Task[Any]) -> None:
        self._under_way.pop(op, None)
        if not task.cancelled():
            task.exception()  # read, so that a failure that nobody waits for is no noise


def _same(op: str, known: str, what: str) -> None:
    if known != what:
        raise IdempotencyMismatch(
            f"op {op} was used before to {known}, not to {what}",
            hint="use a new idempotency key for another request",
        )
