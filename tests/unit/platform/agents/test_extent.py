"""How large a conversation is, by what its logs say."""

from __future__ import annotations

from typing import Any

from tests.unit.platform.agents.test_book import Log

from runtools.platform.agents.extent import Extent


def used(log: Log, turn: int, asked: int, answered: int = 0) -> Log:
    return log.add("usage", inputTokens=asked, outputTokens=answered, turn=turn)


def learned(*logs: Log) -> tuple[int, int, int]:
    extent = Extent()
    for event in [event for log in logs for event in log.events]:
        extent.learn(event)
    return extent.tokens, extent.floor, extent.results


def compacted(log: Log, turn: int) -> Log:
    wire: dict[str, Any] = {"seen": 1}
    return log.add("compaction", wire, turn=turn, tokensBefore=9, summary="so far")


class TestExtent:
    def test_it_is_what_the_last_answer_counted_and_what_came_since(self) -> None:
        log = used(Log().user("a").answer(1, 1, "", "x"), 1, 100, 5).result("x", "12345")
        assert learned(log) == (105, 0, 5)
        assert learned(used(log.answer(2, 4, "b"), 2, 120)) == (120, 0, 0)

    def test_it_goes_on_over_runs(self) -> None:
        first = used(Log("run_1").user("a").answer(1, 1, "", "x"), 1, 100, 5).result("x", "12345")
        assert learned(first, Log("run_2").user("b")) == (105, 0, 5)

    def test_a_try_that_was_given_up_counts_no_conversation(self) -> None:
        first = used(Log("run_1").user("a").answer(1, 1, "b"), 1, 100)
        assert learned(first, used(Log("run_2").user("b"), 1, 7)) == (100, 0, 0)

    def test_an_answer_that_nobody_counted_changes_nothing(self) -> None:
        log = used(used(Log().user("a").answer(1, 1, "b"), 1, 100).answer(2, 1, "c"), 2, 0)
        assert learned(log) == (100, 0, 0)

    def test_the_first_question_after_a_summary_is_the_least_there_is(self) -> None:
        log = compacted(used(Log("run_1").user("a").answer(1, 1, "b"), 1, 100), 2)
        assert learned(log) == (0, 0, 0)
        next_one = used(Log("run_2").user("c").answer(1, 1, "d"), 1, 60, 5)
        assert learned(log, next_one) == (65, 60, 0)
        assert learned(log, used(next_one.answer(2, 3, "e"), 2, 70)) == (70, 60, 0)


def test_a_log_may_begin_in_the_middle() -> None:
    log = used(Log().user("a").answer(3, 1, "", "x"), 3, 50).result("x", "123")
    extent = Extent()
    extent.learn(log.events[-1])
    assert (extent.tokens, extent.results) == (0, 3)
