"""What fits on a host."""

from __future__ import annotations

import pytest

from runtools.platform.host.engine.budget import (
    Budget,
    Load,
    disk_refusal,
    estimate,
    load_of,
    never,
    refusal,
)

BUDGET = Budget(memory_mb=4096, sandboxes=10, headroom_mb=1000)
PLENTY = 1e9


def test_memory_is_counted_at_a_factor():
    assert load_of(1024, 0.5, 3) == Load(1536, 3)


@pytest.mark.parametrize(
    ("taken", "free_disk", "ask", "lacking"),
    [
        (Load(), PLENTY, Load(4096, 1), None),
        (Load(3584, 7), PLENTY, Load(512, 1), None),
        (Load(3585, 7), PLENTY, Load(512, 1), "MB of memory (as counted)"),
        (Load(512, 10), PLENTY, Load(512, 1), "sandboxes"),
        (Load(512, 1), 2024, Load(512, 1), None),
        (Load(512, 1), 2023, Load(512, 1), "MB of disk above the headroom"),
    ],
)
def test_what_is_lacking_is_named(taken, free_disk, ask, lacking):
    found = refusal(BUDGET, taken, free_disk, ask)
    assert (found.what if found else None) == lacking


def test_a_refusal_says_what_was_asked_and_what_is_free():
    found = refusal(BUDGET, Load(4000, 1), PLENTY, Load(512, 1))
    assert (found.asked, found.free) == (512, 96)
    assert "memory_factor" in found.hint


def test_what_the_running_may_still_write_is_not_free_disk():
    assert disk_refusal(BUDGET, Load(500, 1), 1600, 100) is None
    assert disk_refusal(BUDGET, Load(501, 1), 1600, 100).free == 99


def test_too_large_for_the_empty_host_is_never():
    assert never(BUDGET, Load(4096, 1)) is None
    assert never(BUDGET, Load(4097, 1)) is not None


def test_the_wait_grows_with_the_place_and_shrinks_with_the_number_that_runs():
    assert estimate(1, [100, 300], 2) == 100
    assert estimate(3, [100, 300], 2) == 300
    assert estimate(1, [], 2) is None
