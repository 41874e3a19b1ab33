"""Reports: numbered, kept, followed, also over a restart."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
from tests.unit.platform.host.engine.worlds import record

from runtools.platform.host.engine import reports as module
from runtools.platform.host.engine.reports import Reports
from runtools.sdk.shapes.sandboxes import QueuePlace


@pytest.fixture
def start(tmp_path):
    """Start (again) on the same folder."""
    (tmp_path / "log").mkdir()
    made = []

    def start():
        made.append(Reports(tmp_path / "log", tmp_path / "epoch"))
        return made[-1]

    yield start
    for one in made:
        one.close()


async def take(stream, count):
    async with asyncio.timeout(60):
        return [(o.epoch, o.seq) for o in [await anext(stream) for _ in range(count)]]


async def test_the_epoch_grows_at_each_start(start):
    assert [start().epoch, start().epoch, start().epoch] == [1, 2, 3]


async def test_a_follower_gets_what_came_after_and_what_comes(start):
    reports = start()
    for _ in range(3):
        reports.publish(record())
    stream = reports.follow(1, 1)
    assert await take(stream, 2) == [(1, 2), (1, 3)]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    reports.publish(record())
    assert (await waiting).seq == 4
    await stream.aclose()


async def test_a_follower_misses_nothing_over_a_restart(start):
    former = start()
    for _ in range(3):
        former.publish(record())
    reports = start()
    reports.publish(record())
    stream = reports.follow(1, 2)
    assert await take(stream, 2) == [(1, 3), (2, 1)]
    await stream.aclose()


@pytest.mark.parametrize("epoch", [0, 77])
async def test_a_foreign_epoch_gets_the_latest_of_every_sandbox_then_live_ones(start, epoch):
    reports = start()
    for name in ("a", "b", "a"):
        reports.publish(record(f"sandbox-{name * 12}"))
    stream = reports.follow(epoch, 99)
    assert await take(stream, 2) == [(1, 2), (1, 3)]
    reports.publish(record())
    assert await take(stream, 1) == [(1, 4)]
    await stream.aclose()


async def test_two_followers_do_not_disturb_each_other(start):
    reports = start()
    one, other = reports.follow(1, 0), reports.follow(1, 0)
    reports.publish(record())
    reports.publish(record())
    assert await take(one, 2) == await take(other, 2)
    await one.aclose()
    await other.aclose()


async def test_a_long_log_is_continued_under_a_new_epoch(start, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1)
    reports = start()
    stream = reports.follow(1, 0)
    for _ in range(3):
        reports.publish(record())
    assert await take(stream, 3) == [(1, 1), (2, 1), (3, 1)]
    await stream.aclose()


async def test_old_logs_go_when_they_are_too_long(start, tmp_path, monkeypatch):
    start().publish(record())
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    start()
    assert [file.name for file in (tmp_path / "log").iterdir()] == ["2.jsonl"]


async def test_the_place_in_the_queue_is_told(start):
    place = QueuePlace(position=2, estimated_wait_seconds=7.5)
    assert start().publish(record(), place).queue == place


async def test_a_torn_line_ends_the_former_log_but_not_the_following(start, tmp_path):
    start().publish(record())
    with (tmp_path / "log" / "1.jsonl").open("a") as file:
        file.write('{"sandboxId"')
    reports = start()
    reports.publish(record())
    stream = reports.follow(1, 0)
    assert await take(stream, 2) == [(1, 1), (2, 1)]
    await stream.aclose()


@pytest.mark.parametrize("failing", ["write_number", "os.open"])
async def test_a_disk_that_refuses_a_new_file_leaves_the_old_one_in_use(
    start, monkeypatch, failing
):
    """And closes it once: its number may be somebody else's by then."""
    reports = start()
    reports.publish(record())
    held = os.fstat(reports._fd).st_ino

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, "SEGMENT_BYTES", 0)
        patch.setattr(f"{module.__name__}.{failing}", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                reports.publish(record())
            assert os.fstat(reports._fd).st_ino == held
    reports.publish(record())
    await reports.sync()
    stream = reports.follow(1, 0)
    assert await take(stream, 2) == [(1, 1), (1, 2)]
    await stream.aclose()
