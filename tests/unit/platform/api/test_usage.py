"""Adding up: whatever happened, the parts make the whole."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from runtools.platform.api.usage.rules import Move, Stretch, days, running, shares, within

TIMES = st.integers(0, 5_000)
STATES = st.sampled_from(["running", "paused", "stopped"])
MOVES = st.lists(st.builds(Move, TIMES, STATES), max_size=12)


@given(MOVES, TIMES, st.lists(TIMES, min_size=2, max_size=9))
def test_a_period_is_the_sum_of_its_parts(moves: list[Move], now: int, cuts: list[int]) -> None:
    """Also where the clock went back, and where reports came late."""
    stretches = list(running(moves, now))
    cuts = sorted(cuts)
    whole = within(stretches, cuts[0], cuts[-1])
    parts = [within(stretches, a, b) for a, b in itertools.pairwise(cuts)]
    assert sum(parts) == whole
    assert all(part >= 0 for part in parts)
    assert whole <= cuts[-1] - cuts[0]


@given(
    st.lists(st.builds(lambda a, b, c: Stretch(min(a, b), max(a, b), c), TIMES, TIMES, TIMES)),
    st.lists(TIMES, min_size=2, max_size=9),
)
def test_each_period_has_its_share(stretches: list[Stretch], cuts: list[int]) -> None:
    """As it is when each stretch is held against each period; stretches come in any order."""
    periods = list(itertools.pairwise(sorted(cuts)))
    plain = [
        sum(max(0, min(x.until, end) - max(x.since, start)) * x.amount for x in stretches)
        for start, end in periods
    ]
    found = shares(stretches, periods)
    assert [found.get(n, 0) for n in range(len(periods))] == plain
    assert 0 not in found.values()
    assert [within(stretches, *one) for one in periods] == plain


@given(MOVES, TIMES)
def test_no_moment_is_counted_twice(moves: list[Move], now: int) -> None:
    at = 0
    for one in running(moves, now):
        assert at <= one.since < one.until
        at = one.until


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers())
def test_with_a_clock_that_goes_on_it_is_the_time_that_it_ran(gaps: list[int], seed: int) -> None:
    chance = random.Random(seed)
    at, ran, state = 0, 0, "paused"
    moves = [Move(0, state)]
    for gap in gaps:
        at += gap
        ran += gap if state == "running" else 0
        state = chance.choice(["running", "paused"])
        moves.append(Move(at, state))
    assert within(running(moves, at), 0, at) == ran


def test_after_the_end_nothing_counts() -> None:
    moves = [Move(10, "running"), Move(30, "stopped"), Move(40, "running")]
    assert list(running(moves, 100)) == [Stretch(10, 30)]


def test_what_runs_counts_until_now() -> None:
    moves = [Move(10, "running")]
    assert within(running(moves, 50), 0, 1000) == 40
    assert within(running(moves, 5), 0, 1000) == 0


@given(st.integers(0, 10**13), st.integers(0, 40 * 86_400_000))
def test_days_are_the_period_cut_at_midnight(since: int, length: int) -> None:
    cut = list(days(since, since + length))
    assert sum(end - start for _, start, end in cut) == length
    assert len({day for day, _, _ in cut}) == len(cut)
    for (_, _, end), (_, start, _) in itertools.pairwise(cut):
        assert end == start
        assert end % 86_400_000 == 0
