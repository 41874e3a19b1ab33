"""A host is killed at every named point and at fifty random moments: nothing is lost or owned twice.

``RT_TEST_SEED`` (printed) plays a run again, ``RT_TEST_ROUNDS`` makes it longer.
"""

from __future__ import annotations

import os

import pytest

from runtools.platform.host.engine.points import CRASH_POINTS
from runtools.testing.crash.points import give_up, survive
from runtools.testing.crash.saga import Saga


@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_a_kill_at_any_point_loses_nothing(saga: Saga, point: str) -> None:
    await survive(saga, point)


async def test_a_create_that_kills_the_host_is_given_up(saga: Saga) -> None:
    await give_up(saga)


async def test_random_kills_lose_nothing(saga: Saga) -> None:
    await saga.play(int(os.environ.get("RT_TEST_ROUNDS", "50")))
