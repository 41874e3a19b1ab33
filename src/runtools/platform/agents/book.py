"""The log of a run as a worker knows it: a copy without gaps, and the state that follows from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from runtools.platform.agents.extent import Extent
from runtools.platform.core.ports.worker import Logged
from runtools.sdk.shapes.runs import ApprovalResolved, RunUsage


@dataclass(slots=True)
class Call:
    """A call of a tool that the model wants, and how far it has come.

    Attributes:
        index: its place among the calls of its turn; with run and turn it names the act for repeats.
        seq: the number of its event, 0: of none.
        asked: whether a person was asked.
        resolved: what the person decided.
        resolved_at: the number of the event that says so.
        closed: whether its result stands in the log.
        front: whether the run's front end carries it out.
    """

    call_id: str
    name: str
    arguments: dict[str, Any]
    turn: int
    index: int
    seq: int = 0
    asked: bool = False
    resolved: ApprovalResolved | None = None
    resolved_at: int = 0
    closed: bool = False
    front: bool = False

    @property
    def changed(self) -> dict[str, Any] | None:
        """What a person wants it to be made with instead."""
        return None if self.resolved is None else self.resolved.arguments

    @property
    def given(self) -> dict[str, Any]:
        """What it is made with."""
        return self.arguments if self.changed is None else self.changed


@dataclass(slots=True)
class Book:
    """What the log says.

    Attributes:
        last: the number of the last event known.
        turn: how often the model has answered.
        seen: up to which event the model knew the conversation when it answered last.
        said, request: the number of the last message of a person, and its text.
        text: what the last answer said.
        interrupts: the number of the last one that breaks off what is under way.
        calls: those of the last answer.
        call_ids: all of the run's.
        usage: what models were asked, added up.
        extent: how large the conversation is, with the runs before this one.
        compacted: in which turn the conversation was last compacted.
        silent: how many answers since a person spoke said nothing that the run could end with.
        ended: whether `done` stands there.
    """

    last: int = 0
    turn: int = 0
    seen: int = 0
    said: int = 0
    request: str = ""
    text: str = ""
    interrupts: int = 0
    calls: list[Call] = field(default_factory=list)
    call_ids: set[str] = field(default_factory=set)
    usage: RunUsage = field(default_factory=RunUsage)
    extent: Extent = field(default_factory=Extent)
    compacted: int = 0
    silent: int = 0
    ended: bool = False
    _later: dict[int, Logged] = field(default_factory=dict)

    def take(self, events: Iterable[Logged]) -> list[Logged]:
        """Learn of events, in any order and more than once; gives those that are new, in order, no gaps."""
        for event in events:
            if event.seq is not None and event.seq > self.last:
                self._later[event.seq] = event
        new: list[Logged] = []
        while self.last + 1 in self._later:
            new.append(self._later.pop(self.last + 1))
            self._learn(new[-1])
        return new

    @property
    def has_gap(self) -> bool:
        """Whether something is known that comes after what is not."""
        return bool(self._later)

    @property
    def open(self) -> list[Call]:
        """Calls without a result."""
        return [call for call in self.calls if not call.closed]

    @property
    def is_interrupted(self) -> bool:
        """Whether a person has spoken who would not wait for the calls that are open."""
        return self.interrupts > self.seen

    @property
    def is_answered(self) -> bool:
        """Whether the model has answered all that was said, and wants nothing done."""
        return self.turn > 0 and self.said <= self.seen and not self.calls

    def _learn(self, event: Logged) -> None:
        data = event.data
        self.last = event.seq or self.last
        self.extent.learn(event)
        match event.type:
            case "message":
                self._message(event, event.seq or 0)
            case "tool-call":
                index = len(self.calls)
                call = Call(
                    data["callId"],
                    data["name"],
                    data["arguments"],
                    data["turn"],
                    index,
                    event.seq or 0,
                    front=bool(data.get("front")),
                )
                self.calls.append(call)
                self.call_ids.add(call.call_id)
                self.silent = 0
            case "tool-result":
                self._call(data["callId"]).closed = True
            case "approval-requested":
                self._call(data["callId"]).asked = True
            case "approval-resolved":
                call = self._call(data["callId"])
                call.resolved = ApprovalResolved.model_validate(data)
                call.resolved_at = event.seq or 0
            case "usage":
                self.usage = RunUsage.model_validate(data["total"])
            case "compaction":
                self.compacted = data["turn"]
            case "done":
                self.ended = True
            case _:
                pass

    def _message(self, event: Logged, seq: int) -> None:
        data = event.data
        if data["role"] == "user":
            self.said, self.request, self.silent = seq, data["text"], 0
            if data.get("steering") == "interrupt":
                self.interrupts = seq
        elif data["turn"] > 0:
            self.turn, self.seen, self.calls = data["turn"], seen_of(event), []
            self.text = data["text"]
            self.silent += 1

    def _call(self, call_id: str) -> Call:
        for call in self.calls:
            if call.call_id == call_id:
                return call
        return Call(call_id, "", {}, self.turn, -1)  # of a turn that is over: nobody waits for it


def seen_of(event: Logged) -> int:
    """Up to which event the model knew the log when it gave this answer."""
    return int(event.wire.get("seen") or 0) if isinstance(event.wire, dict) else 0  # type: ignore[arg-type]
