"""The edge of a loop that must not end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from runtools.errors import Unavailable
from runtools.platform.kit.rounds import Rounds


def test_what_is_away_is_told_of_when_that_begins_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, away = logging.getLogger("rounds"), Unavailable("the database is away")
    rounds = Rounds(log, "sending")
    for failure in (None, away, away, ZeroDivisionError(), away, None, None, away):
        with rounds:
            if failure is not None:
                raise failure
    told = [(one.getMessage(), one.exc_info is not None) for one in caplog.records]
    held_up = ("sending is held up: the database is away", False)
    assert told == [held_up, ("sending failed", True), ("sending goes on", False), held_up]


def test_a_loop_that_is_to_end_ends() -> None:
    with pytest.raises(asyncio.CancelledError), Rounds(logging.getLogger("rounds"), "sending"):
        raise asyncio.CancelledError
