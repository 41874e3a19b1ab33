"""How long who guesses has to wait."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runtools.platform.api.signin import rules


@pytest.mark.parametrize("kind", rules.FREE)
def test_a_few_are_free_and_then_it_doubles_up_to_a_bound(kind: str) -> None:
    free = rules.FREE[kind]
    assert rules.pause(kind, free - 1) == timedelta()
    waits = [rules.pause(kind, free + more).total_seconds() for more in range(60)]
    assert waits[:4] == [1, 2, 4, 8]
    assert waits == sorted(waits)
    assert waits[-1] == 900


def test_one_place_is_slowed_down_before_the_account_is() -> None:
    assert rules.FREE["account-at"] < rules.FREE["source"] < rules.FREE["account"]
