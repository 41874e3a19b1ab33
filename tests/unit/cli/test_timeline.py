from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from runtools.cli.timeline import Step, steps
from runtools.sdk.shapes import LedgerEntry

START = datetime(2026, 11, 23, 12, tzinfo=UTC)


def entry(seconds: float, state: str, operation: str | None = None, **more: Any) -> LedgerEntry:
    return LedgerEntry.model_validate(
        {
            "seq": int(seconds * 1000),
            "at": START + timedelta(seconds=seconds),
            "sandbox_id": "sandbox-1",
            "state": state,
            "operation": operation,
            "cause": "request",
            "actor": "key_1",
            "detail": {},
        }
        | more
    )


def story(*entries: LedgerEntry) -> list[str]:
    return [step.what for step in steps(entries)]


def test_an_act_is_one_step_told_at_its_end() -> None:
    told = list(
        steps(
            [
                entry(0, "creating", "queued"),
                entry(1, "creating", "starting"),
                entry(1.5, "running", detail={"startedFrom": "warm"}),
                entry(2, "running", "pausing"),
                entry(2.028, "paused"),
            ]
        )
    )
    assert [step.what for step in told] == [
        "runs, from a warm snapshot, asked by key_1 (500 ms)",
        "paused (28 ms)",
    ]
    assert [step.mark for step in told] == ["●", "◐"]


def test_who_asked_is_told_when_it_is_somebody_else() -> None:
    assert story(
        entry(1, "running"),
        entry(2, "paused"),
        entry(3, "running", actor="key_2"),
        entry(4, "paused", actor="key_2"),
    ) == ["runs, asked by key_1", "paused", "runs, asked by key_2", "paused"]


def test_quiet_times_are_said() -> None:
    told: list[Step] = list(
        steps(
            [
                entry(1, "running"),
                entry(601, "running", "pausing", cause="idle"),
                entry(602, "paused", cause="idle"),
            ]
        )
    )
    assert told[1].gap == "10 min"
    assert told[1].what == "paused: nothing happened for its idle time (1.00 s)"


def test_what_goes_on_shows_by_its_beginning() -> None:
    assert story(entry(1, "running"), entry(2, "running", "forking"))[-1] == "is being forked"


def test_an_act_that_failed_says_so() -> None:
    told = list(
        steps(
            [
                entry(1, "running", "pausing"),
                entry(2, "running", detail={"failed": "the disk is full"}),
            ]
        )
    )
    assert told[0].what.startswith("could not be paused")
    assert told[0].notes == ["the disk is full"]


def test_an_end_gives_its_reason() -> None:
    ending = {"reason": "killed by signal 9", "consoleTail": []}
    told = list(
        steps([entry(1, "stopped", cause="vmm_exit", detail={"ending": ending, "ledger": 7})])
    )
    assert told[0].what == "stopped: its virtual machine ended by itself"
    assert told[0].notes == ["killed by signal 9"]


def test_an_end_in_the_middle_of_an_act_is_no_success_of_it() -> None:
    told = story(entry(1, "running", "pausing"), entry(2, "stopped", cause="vmm_exit"))
    assert told[0].startswith("stopped: its virtual machine ended by itself")


def test_details_are_told_once() -> None:
    told = list(
        steps(
            [
                entry(1, "running", detail={"standstillMs": 4}),
                entry(2, "paused", detail={"standstillMs": 4}),
            ]
        )
    )
    assert [step.notes for step in told] == [["standstill ms: 4"], []]


def test_nothing_is_no_story() -> None:
    assert story() == []
