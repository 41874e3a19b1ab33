"""What is asked of one sandbox, done one after the other in a task of its own.

Only what overrules does not wait: it cancels what is under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from runtools.errors import RunToolsError

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    """An act that waits its turn; it is done in the context (the trace, that is) of who asked for it.

    Attributes:
        asked: somebody waits for it who is told rather than kept waiting for a full disk.
        for_room: who does wait where what is before it waits for room.
        op: what it is asked for again by.
    """

    run: Callable[[], Coroutine[Any, Any, Any]]
    done: asyncio.Future[Any]
    context: Context
    asked: bool = False
    for_room: bool = False
    op: str = ""


class Turns:
    """The queue of one sandbox.

    Attributes:
        current: what is under way.
        is_final: it is, or comes next, and nothing comes before it: the sandbox is destroyed.
    """

    def __init__(self, name: str, overruled: Callable[[], RunToolsError]) -> None:
        """``overruled`` is told to those who have not had their turn, or not to its end."""
        self.current: asyncio.Task[Any] | None = None
        self.is_final = False
        self._name = name
        self._overruled = overruled
        self._jobs: deque[_Job] = deque()
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._doing: _Job | None = None

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._jobs)

    async def perform(
        self,
        run: Callable[[], Coroutine[Any, Any, T]],
        *,
        first: bool,
        asked: bool,
        for_room: bool = False,
        op: str = "",
    ) -> T:
        """Do an act in its turn, or ``first`` of those that wait. Cancelling the caller does not end it.

        Nothing comes before one that overrules. ``asked`` is what `hold_up` refuses, and `refuse` where it
        is not ``for_room``: that is dropped with its caller, as long as its turn has not come.
        """
        job = self._job(run)
        job.asked, job.for_room, job.op = asked, for_room, op
        if first and not self.is_final:
            self._jobs.appendleft(job)
        else:
            self._jobs.append(job)
        self._ring()
        try:
            result: T = await asyncio.shield(job.done)
        except asyncio.CancelledError:
            if for_room and job in self._jobs:
                self._jobs.remove(job)
            raise
        return result

    def hold_up(self, told: RunToolsError, refusal: Callable[[], RunToolsError]) -> None:
        """Tell something to who waits for the act under way, and refuse what waits and was asked for.

        The act goes on, and what the platform itself wants waits on.
        """
        if self._doing is not None and not self._doing.done.done():
            self._doing.done.set_exception(told)
        self._refuse([job for job in self._jobs if job.asked], refusal)

    def refuse(self, refusal: Callable[[], RunToolsError]) -> None:
        """Refuse what waits and was asked for, but what waits for room as well: that is waited for now."""
        self._refuse([job for job in self._jobs if job.asked and not job.for_room], refusal)

    def wait_no_more(self, refusal: Callable[[], RunToolsError], op: str | None = None) -> None:
        """Refuse what waits its turn and for room; of one op alone, where that is named."""
        waiting = [job for job in self._jobs if job.for_room and op in (None, job.op)]
        self._refuse(waiting, refusal)

    async def overrule(self, run: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do an act next: what is under way is cancelled, what waits is refused."""
        if self.is_final:
            return await self.perform(run, first=False, asked=False)
        self.is_final = True
        job = self._job(run)
        job.done.add_done_callback(self._overruling_over)
        waiting, self._jobs = self._jobs, deque([job])
        for other in waiting:
            other.done.set_exception(self._overruled())
        if self.current is not None:
            self.current.cancel()
        self._ring()
        result: T = await asyncio.shield(job.done)
        return result

    async def close(self, grace_seconds: float) -> None:
        """End the task; an act under way is given a moment to finish."""
        current = self.current
        if current is not None:
            _, late = await asyncio.wait({current}, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.wait({current})
        if self._task is not None:
            self._task.cancel()
        for job in self._jobs:
            job.done.set_exception(self._overruled())

    def _refuse(self, jobs: list[_Job], refusal: Callable[[], RunToolsError]) -> None:
        for job in jobs:
            self._jobs.remove(job)
            job.done.set_exception(refusal())

    def _job(self, run: Callable[[], Coroutine[Any, Any, Any]]) -> _Job:
        done = asyncio.get_running_loop().create_future()
        # Read, so that a failure that nobody waits for any more is no noise.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        return _Job(run, done, copy_context())

    def _ring(self) -> None:
        self._bell.set()
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), name=self._name)

    async def _serve(self) -> None:
        while True:
            while not self._jobs:
                self._bell.clear()
                await self._bell.wait()
            job = self._jobs.popleft()
            self.current, self._doing = asyncio.create_task(job.run(), context=job.context), job
            try:
                await asyncio.wait({self.current})
                self._hand_over(self.current, job)
            finally:
                self.current = self._doing = None

    def _hand_over(self, task: asyncio.Task[Any], job: _Job) -> None:
        if job.done.done():  # it was held up: its caller has an answer
            _ = task.cancelled() or task.exception()
        elif task.cancelled():
            job.done.set_exception(self._overruled())
        elif (failure := task.exception()) is not None:
            job.done.set_exception(failure)
        else:
            job.done.set_result(task.result())

    def _overruling_over(self, _: asyncio.Future[Any]) -> None:
        self.is_final = False
