"""A run that this worker holds: its log, what can be said of it, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.models import Model

from runtools.platform.agents.answer import Asked, Stream
from runtools.platform.agents.book import Book, Call
from runtools.platform.agents.history import History
from runtools.platform.agents.limits import Limits, reached
from runtools.platform.agents.link import Link
from runtools.platform.agents.points import reach
from runtools.platform.agents.question import Question
from runtools.platform.agents.reins import Reins
from runtools.platform.agents.tools.toolbox import Connect, Toolbox
from runtools.platform.core.ports.worker import Assignment, ModelAccess, NewEvent, News
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.outbound import Outbound
from runtools.platform.kit.schemas import Schemas
from runtools.platform.kit.tracing import OFF, Tracing
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.runs import Done, DurableType, EndStatus, RunError, RunUsage, ToolResult

PREVIEW = 100
"""Attempts of one lease are numbered below this; the next lease's are higher."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all runs of a worker share.

    Attributes:
        build: the model that an access leads to.
        connect: a client of the platform with a run's token.
        outbound: speaks to addresses that may be spoken to.
        search_url: where the web is searched.
        tracing: makes spans of what is done.
        schemas: looks at those that strangers send.
    """

    link: Link
    build: Callable[[ModelAccess], Model]
    connect: Connect
    outbound: Outbound
    clock: Clock
    search_url: str
    tracing: Tracing = OFF
    schemas: Schemas = field(default_factory=Schemas)


class Held:
    """One run under one lease.

    Args:
        began: when it was taken, by the clock's seconds.
    """

    def __init__(
        self,
        means: Means,
        given: Assignment,
        lease: int,
        reins: Reins,
        toolbox: Toolbox,
        asked: Asked,
        limits: Limits,
        history: History,
        began: float,
    ) -> None:
        self.means = means
        self.given = given
        self.id = given.run.id
        self.lease = lease
        self.reins = reins
        self.toolbox = toolbox
        self.asked = asked
        self.limits = limits
        self.history = history
        self.book = Book()
        self.exceeded: str | None = None  # which budget of the org is used up
        self._began = began
        self.first = 0  # of its turns under this lease
        self.known = 0  # up to where whoever is at work knows the log
        self.waits = False  # it was let go of, until somebody wakes it
        self._tried = (0, 0)
        self._owed: set[str] = set()  # what the api was told to end
        self.changed = asyncio.Event()
        self.stream: Stream | None = None  # an answer under way
        self.results: dict[str, NewEvent] = {}  # by call: those on their way into the log
        self.ahead: Question | None = None  # asked before they stand there
        self.begun: set[str] = set()  # calls that may have been made before

    @property
    def seconds(self) -> float:
        """How long it has worked, waiting for people left out."""
        return self.given.spent_seconds + self.means.clock.monotonic() - self._began

    @property
    def limit(self) -> str | None:
        """Which limit of the run, or budget of its org, lets it ask no more; in words."""
        return self.exceeded or reached(self.limits, self.book.turn, self.book.usage, self.seconds)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to be done here."""
        return self.waits or self.book.ended

    @property
    def tries(self) -> int:
        """How often the model was asked in the turn under way, under this lease, for whatever reason."""
        return self._tried[1]

    def count_try(self, turn: int) -> None:
        """It is asked once more."""
        before = self._tried[1] if self._tried[0] == turn else 0
        self._tried = (turn, before + 1)

    @property
    def is_owed_a_result(self) -> bool:
        """Whether the model has answered with a text where a result in a form was asked for."""
        return self.given.output_schema is not None and self.book.is_answered

    async def append(
        self, events: Sequence[NewEvent], *, guarded: bool = False, wait: bool = False
    ) -> News:
        """Append in one transaction, and learn what stands there now. What could not be ended is the api's
        to end from then on.

        Args:
            guarded: only where nobody has said anything that is not known here.
        """
        reach("worker.append.sending")
        seen = self.book.last if guarded else None
        left = sorted(self.toolbox.left - self._owed)
        news = await self.means.link.append(
            self.id, self.lease, events, seen=seen, wait=wait, left=left
        )
        self._owed.update(left)
        reach("worker.append.written")
        await self.learn(news)
        return news

    async def catch_up(self) -> None:
        """Take up the log as it stood when the run was taken, or a little later."""
        self.history.take(self.book.take(self.given.log))
        more = self.given.log_goes_on
        while more:
            news = await self.means.link.read(self.id, self.lease, self.book.last)
            self.history.take(self.book.take(news.events))
            more = news.more
        self.known, self.first = self.book.seen, self.book.turn + 1
        self.begun = {call.call_id for call in self.book.open if self._may_have_begun(call)}

    def _may_have_begun(self, call: Call) -> bool:
        """Whether a call may have been made under an earlier lease: what waited for a person was not."""
        asks = self.toolbox.permission(call.name) == "ask"
        free = call.resolved_at if asks else call.seq
        return 0 < free <= self.given.driven_to

    async def look(self) -> None:
        """Learn what others have appended."""
        await self.learn(await self.means.link.read(self.id, self.lease, self.book.last))

    async def learn(self, news: News) -> None:
        """Take in what is new; pull the reins where somebody wants it."""
        self.history.take(self.book.take(news.events))
        self.exceeded = news.exceeded or self.exceeded
        if news.cancel:
            self.reins.pull("cancel")
        if self.book.interrupts > self.known:
            self.reins.pull("interrupt")
        self.changed.set()
        if news.more or self.book.has_gap:
            await self.look()

    async def drop_ahead(self) -> Question | None:
        """Ask no further what was asked ahead; gives what that was."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            await ended([ahead.coming])
        return ahead

    async def stop_calls(self) -> None:
        """End what open calls have left running, as far as that can be said."""
        await asyncio.gather(*(self.toolbox.stop(call) for call in self.book.open))

    def closed(self, why: str) -> list[NewEvent]:
        """A result for every open call."""
        return [
            result_event(call, self.toolbox.told_of(call, why), failed=True)
            for call in self.book.open
        ]

    def done(
        self,
        status: EndStatus,
        *,
        output: str | None = None,
        structured: Any = None,
        error: RunError | None = None,
        limit: str | None = None,
        usage: RunUsage | None = None,
        iterations: int | None = None,
    ) -> NewEvent:
        """The event that ends the run; ``usage`` and ``iterations`` count what is appended beside it."""
        done = Done(
            status=status,
            output=output if output is not None else self.book.text or None,
            structured=structured,
            error=error,
            limit=limit,
            usage=self.book.usage if usage is None else usage,
            iterations=self.book.turn if iterations is None else iterations,
        )
        return new_event("done", "done", done)


def new_event(key: str, kind: DurableType, payload: Shape, wire: Any = None) -> NewEvent:
    """An event to append."""
    return NewEvent(key=key, type=kind, data=payload.model_dump(mode="json"), wire=wire)


def result_event(
    call: Call,
    output: str,
    *,
    failed: bool = False,
    images: Sequence[Any] = (),
    duration_ms: int = 0,
) -> NewEvent:
    """The event of a call's result."""
    result = ToolResult(
        call_id=call.call_id,
        name=call.name,
        output=output,
        failed=failed,
        images=list(images),
        duration_ms=duration_ms,
        turn=call.turn,
    )
    return new_event(f"t{call.turn}:result:{call.index}", "tool-result", result)


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they are over."""
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
