"""The time of each area adds up to the clock's, however many tests ran side by side."""

from __future__ import annotations

from runtools.testing.areas import lines


def test_the_longest_comes_first_in_its_share_of_the_clock() -> None:
    took = [
        ("tests/unit/guest/test_exec.py::test_one", 30.0),
        ("tests/flow/api/test_life.py::TestLife::test_one", 60.0),
        ("tests/flow/api/test_keys.py::test_two[a::b]", 30.0),
        ("tests/vm/test_ssh.py::test_three", 120.0),
    ]
    assert list(lines(took, wall_seconds=120.0)) == [
        " 50.0%    1.0 min  tests/vm/test_ssh.py",
        " 37.5%    0.8 min  tests/flow/api",
        " 12.5%    0.2 min  tests/unit/guest",
    ]


def test_nothing_is_no_error() -> None:
    assert list(lines([], 1.0)) == []
