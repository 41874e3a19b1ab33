"""Who has not logged in yet: how many, and who makes room."""

from __future__ import annotations

from runtools.platform.gateway.ssh import strangers
from runtools.platform.gateway.ssh.strangers import Strangers
from runtools.testing.clock import ManualClock


def test_the_greediest_address_makes_room_for_others_its_oldest_first() -> None:
    there: Strangers[str] = Strangers(ManualClock(), most=6, most_of_source=5)
    for n in range(4):
        assert there.come(f"a{n}", "a") == []
    assert there.come("b0", "b") == []
    assert there.come("c0", "c") == []
    assert there.come("d0", "d") == ["a0"]
    assert there.come("d1", "d") == ["a1"]
    assert len(there) == 6


def test_four_addresses_that_are_full_keep_nobody_out() -> None:
    there: Strangers[str] = Strangers(ManualClock(), most=64, most_of_source=16)
    for source in "abcd":
        for n in range(16):
            assert there.come(f"{source}{n}", source) == []
    for n in range(8):
        gone = there.come(f"user{n}", "user")
        assert gone is not None
        assert gone[0][0] in "abcd"


def test_of_one_address_no_more_come_before_the_oldest_had_time_to_log_in() -> None:
    clock = ManualClock()
    there: Strangers[str] = Strangers(clock, most=100, most_of_source=2)
    assert there.come("a0", "a") == []
    assert there.come("a1", "a") == []
    assert there.come("a2", "a") is None
    clock.advance(strangers.PATIENCE_SECONDS)
    assert there.come("a3", "a") == ["a0"]
    assert there.come("a4", "a") == ["a1"]
    assert there.come("a5", "a") is None


def test_who_logs_in_or_leaves_makes_room_and_is_forgotten() -> None:
    there: Strangers[str] = Strangers(ManualClock(), most=2, most_of_source=1)
    for _ in range(100):
        assert there.come("a", "a") == []
        there.leave("a")
        there.leave("a")
    assert len(there) == 0
    assert there.come("b", "b") == []
