"""How large a conversation is, by what its logs say."""

from __future__ import annotations

from tests.unit.platform.agents.test_book import Log

from runtools.platform.agents.extent import Extent


def used(log: Log, turn: int, asked: int, answered: int = 0) -> Log:
    return log.add("usage", inputTokens=asked, outputTokens=answered, turn=turn)


def learned(*logs: Log) -> tuple[int, int, int]:
    extent = Extent()
    for event in [event for log in logs for event in log.events]:
        extent.learn(event)
    return extent.tokens, extent.floor, extent.results


def compacted(log: Log, turn: int, seen: int = 1) -> Log:
    return log.add("compaction", {"seen": seen}, turn=turn, tokensBefore=9, summary="so far")


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
        assert learned(log, next_one) == (65, 59, 0)  # but for "c", that a summary would take in
        assert learned(log, used(next_one.answer(2, 3, "e"), 2, 70)) == (70, 59, 0)

    def test_what_stood_whole_after_a_summary_is_none_of_the_least(self) -> None:
        """The next summary makes it shorter: it may be made."""
        first = used(Log("run_1").user("a").answer(1, 1, "b"), 1, 100)
        paste = compacted(Log("run_2").user("x" * 120), 1, seen=0)
        assert learned(first, used(paste.answer(1, 2, "c"), 1, 100)) == (100, 60, 0)
        # Nor is what was said while it was made, and after a run that ended with it.
        late = compacted(Log("run_2").user("x").user("y" * 60), 1, seen=1)
        assert learned(first, late, used(Log("run_3").user("z" * 30).answer(1, 1), 1, 90)) == (
            90,
            60,
            0,
        )

    def test_what_has_no_answer_is_counted_with_its_pictures(self) -> None:
        extent = Extent()
        log = Log().user("a" * 30).answer(1, 1, "b").user("c" * 30, images=[{}, {}])
        for event in log.events:
            extent.learn(event)
        assert extent.unanswered == 10 + 2 * 1600


def test_a_log_may_begin_in_the_middle() -> None:
    log = used(Log().user("a").answer(3, 1, "", "x"), 3, 50).result("x", "123")
    extent = Extent()
    extent.learn(log.events[-1])
    assert (extent.tokens, extent.results) == (0, 3)
