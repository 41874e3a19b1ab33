from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runtools.cli import words

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (1536, "1.5 KB"),
        (2 << 20, "2.0 MB"),
        (150 << 20, "150 MB"),
        (1 << 30, "1.0 GB"),
        (5 << 40, "5.0 TB"),
        (5000 << 40, "5000 TB"),
    ],
)
def test_size(count: int, said: str) -> None:
    assert words.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 ms"),
        (0.0283, "28 ms"),
        (0.612, "612 ms"),
        (1.25, "1.25 s"),
        (59, "59 s"),
        (60, "1 min"),
        (11_520, "3 h 12 min"),
        (90_061, "1 d 1 h"),
    ],
)
def test_span(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(-5, "now"), (0, "now"), (5, "5 s"), (119, "1 min"), (200_000, "2 d")]
)
def test_age(seconds: int, said: str) -> None:
    assert words.age(NOW - timedelta(seconds=seconds), NOW) == said


def test_harmless_text_steers_no_terminal() -> None:
    evil = "a\x1b[2J\x1b]0;title\x07b\r\x08\x9bc\u202ed\tok\n"
    assert words.harmless(evil) == "a�[2J�]0;title�b���c�d\tok\n"
    assert words.harmless("héllo ✓ 🙂") == "héllo ✓ 🙂"


def test_a_harmless_name_stays_on_its_line() -> None:
    assert words.harmless_name("a\nb\tc\x1b[2Jü") == "a�b�c�[2Jü"


def test_plural() -> None:
    assert words.plural(1, "copy", "copies") == "1 copy"
    assert words.plural(0, "copy", "copies") == "0 copies"
    assert words.plural(2, "disk") == "2 disks"
