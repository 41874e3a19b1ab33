"""Repeats are answered, not done again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runtools.errors import IdempotencyMismatch, Unavailable
from runtools.platform.core.ports.host import Kept
from runtools.platform.host.engine.ops import Ops
from runtools.testing.clock import ManualClock

KEPT = Kept(snapshot_id="snp_1", size_bytes=7, standstill_ms=1.5)


class Work:
    """An act that counts how often it is done and writes its result down, as acts do."""

    def __init__(self, ops):
        self.ops, self.done = ops, 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self):
        self.done += 1
        await self.go.wait()
        self.ops.keep("op", "snapshot it", KEPT)
        return KEPT


@pytest.fixture
def ops(tmp_path):
    return Ops(tmp_path, ManualClock())


@pytest.fixture
def work(ops):
    return Work(ops)


def call(ops, work, what="snapshot it"):
    return asyncio.ensure_future(ops.once("op", what, Kept, work))


async def test_a_repeat_gets_the_kept_result_also_after_a_restart(ops, work, tmp_path):
    assert await call(ops, work) == KEPT
    assert await call(Ops(tmp_path, ManualClock()), work) == KEPT
    assert work.done == 1


async def test_a_repeat_joins_what_is_under_way(ops, work):
    work.go.clear()
    twins = [call(ops, work), call(ops, work)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*twins) == [KEPT, KEPT]
    assert work.done == 1


async def test_a_cancelled_caller_does_not_end_the_act(ops, work):
    work.go.clear()
    first = call(ops, work)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    work.go.set()
    assert await call(ops, work) == KEPT
    assert work.done == 1


@pytest.mark.parametrize("over", [True, False])
async def test_an_op_names_one_act_only(ops, work, over):
    if not over:
        work.go.clear()
    first = call(ops, work)
    await asyncio.sleep(0)
    if over:
        await first
    with pytest.raises(IdempotencyMismatch):
        await call(ops, work, what="destroy it")
    work.go.set()
    await first


async def test_what_failed_may_be_tried_again(ops, work):
    async def fail():
        raise Unavailable("no")

    with pytest.raises(Unavailable):
        await ops.once("op", "snapshot it", Kept, fail)
    assert await call(ops, work) == KEPT


async def test_a_kept_error_is_told_again(ops, work):
    ops.keep("op", "snapshot it", Unavailable("for ever", hint="go home"))
    with pytest.raises(Unavailable, match="for ever") as told:
        await call(ops, work)
    assert (told.value.hint, work.done) == ("go home", 0)


async def test_a_caller_chosen_id_names_no_path(ops, work, tmp_path):
    ops.keep("../../etc/passwd", "x", KEPT)
    assert [file.parent for file in tmp_path.rglob("*.json")] == [tmp_path]


async def test_old_results_are_swept(tmp_path):
    clock = ManualClock()
    ops = Ops(tmp_path, clock)
    ops.keep("op", "x", KEPT)
    assert ops.sweep() == 0
    clock.advance(10 * 365 * 86400)
    assert ops.sweep() == 1
    assert list(tmp_path.iterdir()) == []


async def test_a_result_that_is_withdrawn_while_they_are_swept_is_in_nobodys_way(
    tmp_path, monkeypatch
):
    clock = ManualClock()
    ops = Ops(tmp_path, clock)
    for op in ("withdrawn", "old"):
        ops.keep(op, "what", KEPT)
    real = Path.glob

    def meanwhile(folder, pattern):
        found = list(real(folder, pattern))
        ops.withdraw("withdrawn")
        return iter(found)

    monkeypatch.setattr(Path, "glob", meanwhile)
    clock.advance(10 * 365 * 86400)
    assert ops.sweep() == 1
    assert list(tmp_path.iterdir()) == []
