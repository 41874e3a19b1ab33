"""A page that looks again by itself does not do so for ever."""

from __future__ import annotations

from runtools.platform.gateway.web.reloads import MINUTES, Reloads
from runtools.testing.clock import ManualClock

BOX = ("sandbox-aaaaaaaaaaaa", 3000, "192.0.2.1")


def looked(reloads: Reloads, clock: ManualClock, seconds: float) -> int:
    """How often it may, looking every two seconds for so long, and each time for one second."""
    may = 0
    for _ in range(int(seconds / 2)):
        began = clock.monotonic()
        clock.advance(1)
        may += reloads.may(BOX, began)
        clock.advance(1)
        reloads.sweep()
    return may


def test_it_ends_after_a_while_and_begins_anew_where_nobody_looked_meanwhile() -> None:
    clock = ManualClock()
    reloads = Reloads(clock.monotonic)
    assert looked(reloads, clock, 2 * MINUTES * 60) == MINUTES * 30
    now = clock.monotonic()
    assert reloads.may(("sandbox-aaaaaaaaaaaa", 3001, "192.0.2.1"), now)
    assert reloads.may(("sandbox-aaaaaaaaaaaa", 3000, "192.0.2.2"), now)
    clock.advance(20)
    assert reloads.may(BOX, clock.monotonic())


def test_a_look_that_takes_a_wake_begins_nothing_anew() -> None:
    clock = ManualClock()
    reloads = Reloads(clock.monotonic)
    looked(reloads, clock, MINUTES * 60 - 10)
    began = clock.monotonic()
    clock.advance(60)
    reloads.sweep()
    assert not reloads.may(BOX, began)


def test_who_looks_no_more_is_forgotten() -> None:
    clock = ManualClock()
    reloads = Reloads(clock.monotonic)
    for n in range(100):
        reloads.may(("sandbox-aaaaaaaaaaaa", n, "192.0.2.1"), clock.monotonic())
    clock.advance(700)
    reloads.sweep()
    assert reloads._looks == {}
