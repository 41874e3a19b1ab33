"""The log of refusals: bounded, counted, kept."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from runtools.platform.core.ports.network import Refusal, untold
from runtools.platform.host.engine import refusals
from runtools.platform.host.engine.refusals import FILE, LINES, Refusals
from runtools.platform.kit.clock import SystemClock


def refusal(n: int) -> Refusal:
    return Refusal("not_allowed", "dns", f"h{n}.evil.net")


async def test_the_same_again_is_counted(tmp_path: Path) -> None:
    log = Refusals(tmp_path, SystemClock())
    for n in (1, 2, 1):
        log.add(refusal(n))
    view = log.view()
    assert [(one.name, one.count) for one in view.refusals] == [
        ("h1.evil.net", 2),
        ("h2.evil.net", 1),
    ]
    assert view.refusals[0].first_at <= view.refusals[1].first_at <= view.refusals[0].last_at


async def test_it_is_bounded_and_says_what_it_lost(tmp_path: Path) -> None:
    log = Refusals(tmp_path, SystemClock())
    for n in (0, 0, *range(1, LINES + 1)):
        log.add(refusal(n))
    view = log.view()
    assert len(view.refusals) == LINES
    assert view.forgotten == 2
    assert view.refusals[-1].name == "h1.evil.net"


async def test_it_outlives_the_platform(tmp_path: Path) -> None:
    first = Refusals(tmp_path, SystemClock())
    for n in range(3):
        first.add(refusal(n))
    await first.close()
    heir = Refusals(tmp_path, SystemClock())
    assert heir.view() == first.view()
    heir.add(refusal(0))
    assert next((one.name, one.count) for one in heir.view().refusals) == ("h0.evil.net", 2)


async def test_a_guest_refused_without_end_beside_a_slow_disk_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_SAVE_SECONDS", 0)
    writing, go, real = [], threading.Event(), refusals.write_atomic

    def slow(path: Path, data: bytes, *, durable: bool) -> None:
        assert not durable
        writing.append(threading.current_thread())
        assert go.wait(30)
        real(path, data, durable=durable)

    monkeypatch.setattr(refusals, "write_atomic", slow)
    log = Refusals(tmp_path, SystemClock())
    log.add(refusal(0))
    async with asyncio.timeout(30):
        while not writing:
            await asyncio.sleep(0.001)  # this loop goes on meanwhile
    for n in range(100):
        log.add(refusal(n))
        await asyncio.sleep(0)
    assert len(writing) == 1
    assert writing[0] is not threading.current_thread()
    go.set()
    await log.close()
    assert Refusals(tmp_path, SystemClock()).view() == log.view()


async def test_what_came_too_fast_is_one_line_with_its_number(tmp_path: Path) -> None:
    log = Refusals(tmp_path, SystemClock())
    log.add(untold("not_allowed", 7000))
    log.add(untold("not_allowed", 3))
    [line] = log.view().refusals
    assert (line.reason, line.address, line.name, line.count) == ("not_allowed", None, None, 7003)


async def test_a_reason_that_may_surprise_says_what_to_do(tmp_path: Path) -> None:
    log = Refusals(tmp_path, SystemClock())
    log.add(Refusal("encrypted_hello", "tcp", "front.example.org", "203.0.113.7", 443))
    log.add(refusal(1))
    plain, hinted = log.view().refusals
    assert plain.hint is None
    assert "ECH" in (hinted.hint or "")


async def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    assert Refusals(tmp_path, SystemClock()).view().refusals == []
