"""How long who guesses has to wait."""

from __future__ import annotations

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


def test_a_failure_that_was_none_leaves_no_trace() -> None:
    clock = ManualClock()
    tries = Guesses(clock, free=2, longest=10)
    tries.failed("a")
    tries.forgive("a")
    assert len(tries) == 0
    for _ in range(3):
        tries.failed("a")
    assert tries.wait("a") == 2
    tries.forgive("a")
    assert tries.wait("a") == 1
    tries.forgive("a")
    assert tries.wait("a") == 0
    tries.forgive("b")
    assert len(tries) == 1
