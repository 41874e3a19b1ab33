"""What the soak says at its end: what held, and what was not reached."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.soak import __main__ as soak
from tests.soak import result, scenes

from runtools.testing.integrity.known import Mismatch

RECORD = result.RESULT


@pytest.fixture(autouse=True)
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing real: two cycles or rounds take the whole time."""

    async def nothing(*_: Any) -> None:
        return

    async def two(*_: Any) -> scenes.Played:
        return scenes.Played(
            cycles=2, forks=2, small_forks=1, small_mb=200, clock_ms=30, compared_mb=900
        )

    async def over(*_: Any) -> None:
        monkeypatch.setattr(soak.time, "monotonic", lambda: float("inf"))

    monkeypatch.setattr(soak, "find_template", lambda _: None)
    monkeypatch.setattr(soak.Home, "make", nothing)
    monkeypatch.setattr(soak.Home, "close", nothing)
    monkeypatch.setattr(scenes, "integrity", two)
    monkeypatch.setattr(scenes, "kills", over)
    monkeypatch.setattr(scenes, "point", nothing)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(result, "RESULT", tmp_path / "soak.json")


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["soak", *words])
    code = 0
    try:
        soak.main()
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code", "last"),
    [
        (["--only", "integrity", "--cycles", "2"], 0, "all held: 2 cycles of integrity"),
        (["--only", "integrity", "--cycles", "5"], 3, "NOT REACHED: 5 cycles of integrity"),
        (["--only", "integrity"], 0, "all held: 2 cycles of integrity of 100, the time was over"),
        (["--minutes", "9"], 0, "all held: "),
        ([], 3, "NOT REACHED: 100 cycles of integrity"),
        (["--only", "kills", "--rounds", "20"], 3, "NOT REACHED: 20 rounds of kills"),
        (["--only", "kills", "--rounds", "10"], 0, "all held: 10 rounds of kills"),
    ],
)
def test_a_number_that_was_asked_for_and_not_reached_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    last: str,
) -> None:
    ended, line = said(monkeypatch, capsys, *words)
    assert ended == code
    assert line.startswith(last)


def test_the_whole_soak_is_for_nothing_less_than_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, line = said(monkeypatch, capsys)
    assert "100 cycles of integrity; 50 rounds of kills;" in line
    kept = json.loads(result.RESULT.read_text())
    assert {part: kept[part]["passed"] for part in kept} == {
        "integrity": False,
        "kills": False,
        "points": True,
    }
    assert kept["integrity"]["wanted"] == [
        "cycles ≥ 100",
        "mismatches = 0",
        "small_forks ≥ 1",
        "small_mb ≤ 256",
        "clock_ms < 500",
    ]


@pytest.mark.parametrize(
    ("forks", "megabytes", "passed"), [(1, 256, True), (0, 0, False), (1, 257, False)]
)
def test_a_fork_of_little_memory_is_wanted(forks: int, megabytes: int, passed: bool) -> None:
    shown = {"cycles": 100, "mismatches": 0, "clock_ms": 9, "small_forks": forks}
    result.keep("integrity", {**shown, "small_mb": megabytes})
    assert json.loads(result.RESULT.read_text())["integrity"]["passed"] is passed


def test_a_shorter_run_takes_no_longer_ones_place_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(rounds: int) -> str | None:
        return result.keep("kills", {"rounds": rounds, "seed": rounds})

    assert shown(40) is None
    assert "keeps what kills has shown before: 40 rounds" in (shown(30) or "")
    said(monkeypatch, capsys, "--only", "kills", "--rounds", "10")
    assert json.loads(result.RESULT.read_text())["kills"]["rounds"] == 40
    assert [shown(rounds) for rounds in (90, 50)] == [None, None], "what is wanted is enough"
    result.keep("kills", {"failed": "kills", "seed": 1, "error": "lost"})
    assert "kills failed" in (shown(49) or "")
    assert json.loads(result.RESULT.read_text())["kills"]["passed"] is False
    assert shown(50) is None
    assert json.loads(result.RESULT.read_text())["kills"]["passed"] is True


def test_a_bound_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["soak", "--cycles", "0"])
    with pytest.raises(SystemExit):
        soak.main()
    assert "a number from 1 on" in capsys.readouterr().err


def test_what_each_part_has_shown_is_kept_and_a_failure_takes_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said(monkeypatch, capsys, "--only", "integrity", "--cycles", "2", "--seed", "7")
    said(monkeypatch, capsys, "--only", "kills", "--rounds", "10", "--seed", "8")
    kept = json.loads(result.RESULT.read_text())
    shown = {"cycles": 2, "forks": 2, "small_mb": 200, "mismatches": 0, "seed": 7}
    assert shown.items() <= kept["integrity"].items()
    assert {"rounds": 10, "seed": 8}.items() <= kept["kills"].items()
    assert kept["kills"]["commit"]

    async def wrong(*_: Any) -> scenes.Played:
        raise Mismatch("a byte is another", block=3)

    monkeypatch.setattr(scenes, "integrity", wrong)
    with pytest.raises(Mismatch):
        said(monkeypatch, capsys, "--only", "integrity", "--seed", "9")
    again = json.loads(result.RESULT.read_text())
    assert again["kills"] == kept["kills"]
    assert (again["integrity"]["failed"], again["integrity"]["seed"]) == ("integrity", 9)
    assert "mismatches" not in again["integrity"]


@pytest.mark.parametrize("part", result.WANTED)
def test_the_record_shows_what_is_wanted_today(part: str) -> None:
    kept = json.loads(RECORD.read_text())[part]
    assert kept["wanted"] == [bound.text for bound in result.WANTED[part]]
    assert kept["passed"]
    assert all(bound.kept(kept) for bound in result.WANTED[part])
