"""A build's log is numbered, kept, and followed while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.platform.host.templates import buildlog
from runtools.platform.host.templates.buildlog import BuildLog, duration, read_log
from runtools.platform.kit.clock import SystemClock


@pytest.fixture
def log(tmp_path: Path) -> Iterator[BuildLog]:
    log = BuildLog(tmp_path / "build.log", SystemClock())
    yield log
    log.end()


async def texts(log: BuildLog, after: int = 0) -> list[str]:
    return [line.text async for line in log.follow(after)]


class TestLines:
    async def test_are_numbered_from_one(self, log: BuildLog) -> None:
        log.line("a")
        log.line("b\nc")
        log.end()
        assert [line.n async for line in log.follow(0)] == [1, 2, 3]

    async def test_are_kept(self, log: BuildLog, tmp_path: Path) -> None:
        log.step("packages", 0.0, 0.5)
        log.line("Get: x")
        log.end()
        kept = read_log(tmp_path / "build.log")
        assert [(line.step, line.text) for line in kept] == [
            ("packages", "== packages"),
            ("packages", "Get: x"),
        ]

    async def test_half_a_line_of_a_crash_is_left_out(self, log: BuildLog, tmp_path: Path) -> None:
        log.line("whole")
        log.end()
        with (tmp_path / "build.log").open("a") as file:
            file.write('{"n": 2, "te')
        assert [line.text for line in read_log(tmp_path / "build.log")] == ["whole"]

    async def test_too_many_are_cut_and_that_is_said(
        self, log: BuildLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(buildlog, "_MAX_LINES", 3)
        for n in range(10):
            log.line(str(n))
        log.end()
        assert await texts(log) == ["0", "1", "2", "… the rest of what is said was cut"]

    async def test_long_ones_are_cut_and_the_steps_go_on(
        self, log: BuildLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host is not to hold what a script likes to print."""
        monkeypatch.setattr(buildlog, "_MAX_BYTES", 100)
        log.step("script", 0.0, 0.5)
        for _ in range(50):
            log.line("x" * 30)
        log.step("image", 0.5, 1.0)
        log.line("more")
        log.line("how it ended", always=True)
        log.end()
        cut = "… the rest of what is said was cut"
        told = ["== script", *["x" * 30] * 3, cut, "== image", "how it ended"]
        assert await texts(log) == told

    @pytest.mark.parametrize(("sign", "size"), [("x", 1), ("\x01", 6), ("\ufffd", 3)])
    async def test_are_cut_by_what_they_take_of_the_disk(
        self, log: BuildLog, monkeypatch: pytest.MonkeyPatch, sign: str, size: int
    ) -> None:
        """What is no text is written in several bytes a sign."""
        monkeypatch.setattr(buildlog, "_MAX_BYTES", 6200)
        for _ in range(100):
            log.line(sign * 100)
        log.end()
        assert len(await texts(log)) == 1 + 6200 // (size * 100 + 2)  # with its quotes

    @pytest.mark.parametrize(
        ("printed", "shown"),
        [
            ("\r" * 4000, [""]),
            ("10 %\r50 %\r100 %", ["100 %"]),
            ("10 %\r100 %\r", ["100 %"]),
            ("a\r\nb\r\n", ["a", "b"]),
            ("10 %\r90 %\nan error", ["90 %", "an error"]),
        ],
    )
    async def test_of_what_is_written_over_the_last_is_kept(
        self, log: BuildLog, printed: str, shown: list[str]
    ) -> None:
        log.line(printed)
        log.end()
        assert await texts(log) == shown


class TestFollow:
    async def test_resumes_after_a_position(self, log: BuildLog) -> None:
        for text in "abc":
            log.line(text)
        log.end()
        assert await texts(log, after=2) == ["c"]

    async def test_waits_for_more_and_ends_with_the_build(self, log: BuildLog) -> None:
        log.line("first")
        following = asyncio.create_task(texts(log))
        await asyncio.sleep(0)
        log.line("second")
        await asyncio.sleep(0)
        log.line("third")
        log.end()
        assert await following == ["first", "second", "third"]

    async def test_many_readers_get_all(self, log: BuildLog) -> None:
        readers = [asyncio.create_task(texts(log)) for _ in range(5)]
        log.line("x")
        log.end()
        assert await asyncio.gather(*readers) == [["x"]] * 5


class TestProgress:
    def test_goes_through_the_share_of_a_step(self, log: BuildLog) -> None:
        log.step("packages", 0.0, 0.4)
        log.part(0.5)
        assert log.progress == pytest.approx(0.2)

    def test_never_goes_back_nor_beyond(self, log: BuildLog) -> None:
        log.step("packages", 0.0, 0.4)
        log.part(2.0)
        log.part(0.1)
        assert log.progress == pytest.approx(0.4)


def test_durations_for_people() -> None:
    clock = SystemClock()
    now = clock.now()
    assert duration(now, now.replace(microsecond=0)) in {"0 s", "-1 s"}
    assert duration(now.replace(minute=0, second=5), now.replace(minute=1, second=9)) == (
        "1 min 4 s"
    )
