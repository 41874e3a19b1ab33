"""How long a call is repeated."""

from __future__ import annotations

import pytest

from runtools.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    GuestUnreachable,
    HostUnavailable,
    NotFound,
    RateLimited,
    RunToolsError,
    Unavailable,
)
from runtools.sdk import patience as module
from runtools.sdk.patience import Patience
from runtools.sdk.wire import Silence


class Time:
    """A clock that goes on when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(module, "monotonic", made)
    return made


def waited(time: Time, patience: Patience, failure: RunToolsError, attempt: float = 0.0) -> float:
    """Seconds until a call that always fails so is given up; each attempt takes so long."""
    began = time.now
    for _ in range(1000):
        time.now += attempt
        pause = patience.after(failure)
        if pause is None:
            return time.now - began
        time.now += pause
    raise AssertionError("it is never given up")


def test_a_platform_that_is_away_is_waited_for(time: Time) -> None:
    assert 7 < waited(time, Patience(10), Unavailable("down")) <= 10


def test_also_when_it_goes_away_in_a_long_call(time: Time) -> None:
    patience = Patience(10)
    time.now += 500
    assert 7 < waited(time, patience, HostUnavailable("gone")) <= 10


@pytest.mark.parametrize("kind", [GuestUnreachable, DeadlineExceeded])
def test_a_slow_failure_is_not_waited_for_again(time: Time, kind: type[RunToolsError]) -> None:
    assert waited(time, Patience(10), kind("silent"), attempt=30) == 30
    assert waited(time, Patience(10), kind("silent"), attempt=1) < 12


@pytest.mark.parametrize(
    "failure", [NotFound("no"), CapacityExhausted("full"), Silence("busy"), RunToolsError("bug")]
)
def test_what_does_not_pass_is_not_repeated(time: Time, failure: RunToolsError) -> None:
    assert Patience(10).after(failure) is None


def test_what_the_platform_asks_is_kept_to(time: Time) -> None:
    asked = RateLimited("slow down", details={"retryAfterSeconds": 3})
    assert Patience(10).after(asked) == 3
    assert Patience(2).after(asked) is None


def test_news_begin_it_anew(time: Time) -> None:
    patience = Patience(1)
    waited(time, patience, Unavailable("down"))
    patience.restart()
    assert patience.after(Unavailable("down")) is not None


def test_none_at_all(time: Time) -> None:
    assert Patience(0).after(Unavailable("down")) is None


def test_pauses_grow_and_are_not_in_step(time: Time) -> None:
    pauses = [Patience(10).after(Unavailable("down")) for _ in range(5)]
    assert len(set(pauses)) > 1
    one = Patience(100)
    grown = [one.after(Unavailable("down")) or 0 for _ in range(8)]
    assert grown[0] <= 0.1
    assert 1 <= grown[-1] <= 2
