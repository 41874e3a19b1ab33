"""How long who guesses has to wait."""

from __future__ import annotations

import pytest

from runtools.platform.gateway.ssh import guesses
from runtools.platform.gateway.ssh.guesses import Guesses
from runtools.testing.clock import ManualClock


def test_some_are_free_and_each_more_doubles_the_wait_to_a_bound() -> None:
    clock = ManualClock()
    tries = Guesses(clock, free=3, longest=10)
    waits = []
    for _ in range(9):
        tries.failed("a")
        waits.append(tries.wait("a"))
    assert waits == [0, 0, 1, 2, 4, 8, 10, 10, 10]
    assert tries.wait("b") == 0


def test_a_wait_runs_out_and_a_quiet_hour_forgets() -> None:
    clock = ManualClock()
    tries = Guesses(clock, free=1, longest=10)
    tries.failed("a")
    clock.advance(1)
    assert tries.wait("a") == 0
    tries.failed("a")
    assert tries.wait("a") == 2
    clock.advance(guesses.FORGOTTEN_AFTER + 1)
    tries.failed("a")
    assert tries.wait("a") == 1


def test_a_million_names_take_no_more_room_than_a_bound() -> None:
    tries = Guesses(ManualClock(), free=1, longest=10)
    tries.failed("first")
    for n in range(guesses.MOST):
        tries.failed(str(n))
    assert len(tries) == guesses.MOST
    assert tries.wait("first") == 0


def test_a_try_counts_until_it_is_known_to_be_right() -> None:
    tries = Guesses(ManualClock(), free=2, longest=10)
    with tries.trying("a") as first:
        assert tries.wait("a") == 0
        with tries.trying("a"), tries.trying("a") as third:
            assert tries.wait("a") == 2
            third.is_failure = False
        assert tries.wait("a") == 1
        first.is_failure = False
    assert tries.wait("a") == 0
    with pytest.raises(RuntimeError), tries.trying("a"):
        raise RuntimeError
    assert tries.wait("a") == 1  # nobody knows better


def test_one_that_was_right_leaves_no_trace() -> None:
    clock = ManualClock()
    tries = Guesses(clock, free=2, longest=10)
    with tries.trying("a") as one:
        one.is_failure = False
    assert len(tries) == 0
    for _ in range(3):
        tries.failed("a")
    clock.advance(2)
    for _ in range(5):
        assert tries.wait("a") == 0
        with tries.trying("a") as one:
            one.is_failure = False
        clock.advance(1)
    clock.advance(guesses.FORGOTTEN_AFTER - 7)
    tries.failed("a")
    assert tries.wait("a") == 4
    clock.advance(guesses.FORGOTTEN_AFTER)
    with tries.trying("a") as one:
        one.is_failure = False
    clock.advance(1)  # a try that was right has made nothing last longer
    tries.failed("a")
    assert tries.wait("a") == 0


def test_what_is_forgotten_meanwhile_is_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "MOST", 1)
    tries = Guesses(ManualClock(), free=1, longest=10)
    with tries.trying("a"):
        tries.failed("b")
    assert tries.wait("a") == 1
    with tries.trying("b") as one:
        tries.failed("c")
        one.is_failure = False
    assert tries.wait("c") == 1
