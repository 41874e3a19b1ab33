"""What a worker knows of a log, and what the model is shown of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic_ai.messages import ModelRequest, ModelResponse, ToolReturnPart, UserPromptPart

from runtools.platform.agents.book import Book
from runtools.platform.agents.history import LEFT_OPEN, History, plain_response
from runtools.platform.core.ports.worker import Logged

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Log:
    """Events, numbered as they come."""

    def __init__(self, run_id: str = "run_1") -> None:
        self.run_id = run_id
        self.events: list[Logged] = []

    def add(self, kind: Any, wire: Any = None, **data: Any) -> Log:
        seq = len(self.events) + 1
        self.events.append(
            Logged(
                type=kind, seq=seq, run_id=self.run_id, at=NOW, data=data, key=str(seq), wire=wire
            )
        )
        return self

    def user(self, text: str, **more: Any) -> Log:
        return self.add("message", role="user", text=text, turn=0, **more)

    def answer(self, turn: int, seen: int, text: str = "", *calls: str) -> Log:
        parts: list[dict[str, Any]] = [{"part_kind": "text", "content": text}] if text else []
        parts += [
            {"part_kind": "tool-call", "tool_name": "t", "args": {}, "tool_call_id": call}
            for call in calls
        ]
        response = {**plain_response(""), "parts": parts}
        self.add(
            "message", {"seen": seen, "response": response}, role="assistant", text=text, turn=turn
        )
        for call in calls:
            self.add("tool-call", callId=call, name="t", arguments={}, turn=turn)
        return self

    def result(self, call: str, output: str = "ok") -> Log:
        return self.add("tool-result", callId=call, name="t", output=output, failed=False, turn=1)


def outline(log: Log, *earlier: Log) -> list[list[str]]:
    """The conversation in short: who says what."""
    history = History(sees=True)
    for one in earlier:
        history.take(one.events)
        history.end()
    history.take(log.events)
    found = []
    for message in history.shown(""):
        line = ["model" if isinstance(message, ModelResponse) else "user"]
        for part in message.parts:
            match part:
                case UserPromptPart(content=content):
                    line.append(str(content))
                case ToolReturnPart():
                    line.append(f"{part.tool_call_id}={part.content}")
                case _:
                    line.append(getattr(part, "tool_call_id", None) or getattr(part, "content", ""))
        found.append(line)
    return found


class TestBook:
    def test_it_has_no_gaps_whatever_the_order(self) -> None:
        log, book = Log().user("a").user("b").user("c"), Book()
        assert book.take([log.events[2]]) == []
        assert book.has_gap
        assert book.take([log.events[0], log.events[2]]) == [log.events[0]]
        assert book.take(log.events) == log.events[1:]
        assert (book.last, book.said, book.has_gap) == (3, 3, False)

    def test_calls_are_open_until_their_results_come(self) -> None:
        book = Book()
        book.take(Log().user("a").answer(1, 1, "", "x", "y").result("y").events)
        assert [call.call_id for call in book.open] == ["x"]
        assert book.open[0].index == 0
        assert not book.is_answered

    def test_an_interruption_counts_until_it_was_answered(self) -> None:
        log, book = Log().user("a").answer(1, 1, "", "x").user("stop", steering="interrupt"), Book()
        book.take(log.events)
        assert book.is_interrupted
        book.take(log.result("x").answer(2, 5, "well").events)
        assert not book.is_interrupted
        assert book.is_answered


class TestHistory:
    def test_what_came_while_the_model_answered_stands_after_it(self) -> None:
        log = Log().user("a").user("late").answer(1, 1, "", "x").user("later").result("x")
        assert outline(log) == [["user", "a"], ["model", "x"], ["user", "x=ok", "late", "later"]]

    def test_results_stand_in_the_order_of_their_calls(self) -> None:
        log = Log().user("a").answer(1, 1, "", "x", "y").result("y", "2").result("x", "1")
        assert outline(log)[-1] == ["user", "x=1", "y=2"]

    def test_no_call_stays_open(self) -> None:
        first = Log("run_0").user("a").answer(1, 1, "", "x")
        assert outline(Log().user("b"), first)[-1] == ["user", f"x={LEFT_OPEN}", "b"]

    def test_numbers_begin_anew_with_each_run(self) -> None:
        first = Log("run_0").user("a").answer(1, 1, "A").user("unheard")
        second = Log().user("b").answer(1, 1, "B").user("c")
        assert outline(second, first) == [
            ["user", "a"],
            ["model", "A"],
            ["user", "unheard", "b"],
            ["model", "B"],
            ["user", "c"],
        ]

    def test_a_summary_stands_for_all_before_it(self) -> None:
        log = Log().user("a").answer(1, 1, "", "x").result("x").user("late")
        log.add("compaction", {"seen": 4, "request": "a"}, turn=2, tokensBefore=9, summary="so far")
        [[_, said, late]] = outline(log)
        assert "so far" in said
        assert said.endswith("a")
        assert late == "late"

    def test_what_had_no_answer_stands_after_it(self) -> None:
        log = Log().user("a").answer(1, 1, "", "x").user("b").result("x")
        log.add("compaction", {"seen": 1, "request": ""}, turn=2, tokensBefore=9, summary="so far")
        [[_, said, late]] = outline(log)
        assert said.endswith("so far")
        assert late == "b"

    def test_what_was_said_before_the_run_is_its_first_part(self) -> None:
        log = Log().user("a")
        log.add("message", role="assistant", text="A", turn=0)
        assert outline(log.user("b")) == [["user", "a"], ["model", "A"], ["user", "b"]]

    def test_there_is_always_something_to_answer(self) -> None:
        assert isinstance(History(sees=True).shown("")[-1], ModelRequest)
