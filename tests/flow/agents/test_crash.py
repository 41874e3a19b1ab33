"""Workers that end in the middle of a run, and many runs at once, against a ledger of what was done."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.flow.agents.conftest import Stage

from runtools.testing.fake_runs import FakeRun, serving
from runtools.testing.scripted_model import Call, Script
from runtools.testing.worker_process import EDITED, LEDGER, Makers, step

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def makers() -> AsyncIterator[Makers]:
    """What workers are forked from."""
    made = Makers()
    yield made
    made.close()


async def prepared(stage: Stage) -> FakeRun:
    """A run whose sandbox has an empty ledger."""
    await stage.sandbox.files.write(LEDGER, "")
    await stage.sandbox.files.write(EDITED, "end\n")
    return stage.make()


async def check(stage: Stage, run: FakeRun, steps: int, unheard: int = 0) -> None:
    """Nothing lost, nothing doubled, nothing repeated; in the log and in the sandbox."""
    done = (await stage.sandbox.files.read(LEDGER)).decode().split()
    assert done == [str(number) for number in range(steps)]
    edited = (await stage.sandbox.files.read(EDITED)).decode().split()
    assert edited == [*(str(number) for number in range(steps) if number % 2), "end"]
    assert [event.seq for event in run.log] == list(range(1, len(run.log) + 1))
    assert run.types().count("done") == 1
    assert run.done["status"] == "completed"
    assert run.done["iterations"] == steps + 1
    calls = [one["callId"] for one in run.of("tool-call")]
    results = [one["callId"] for one in run.of("tool-result")]
    assert len(calls) == len(set(calls)) == sum(len(step(n)) - 1 for n in range(steps))
    assert sorted(results) == sorted(calls)
    assert not any(one["failed"] for one in run.of("tool-result"))
    # Whoever is to end says what a question took that nobody hears the answer of; who is killed, does not.
    assert run.done["usage"]["requests"] == len(run.of("usage")) == steps + 1 + unheard


async def test_killed_while_a_command_runs(stage: Stage, makers: Makers) -> None:
    run = await prepared(stage)
    async with serving(stage.runs) as url:
        for number in range(2):
            told = f"wrote {number}"
            pid = await makers.start(url, stage.url, 2)
            await stage.runs.until(
                lambda told=told: any(told in str(one.data) for one in run.deltas)
            )
            os.kill(pid, signal.SIGKILL)
            await makers.wait(pid)
        pid = await makers.start(url, stage.url, 2)
        await stage.runs.ended(run)
        os.kill(pid, signal.SIGTERM)
        assert await makers.wait(pid) == 0
    await check(stage, run, 2)


async def test_one_that_is_to_end_lets_go_and_another_goes_on(stage: Stage, makers: Makers) -> None:
    run = await prepared(stage)
    async with serving(stage.runs) as url:
        first = await makers.start(url, stage.url, 6)
        await stage.runs.until(lambda: run.types().count("tool-result") >= 2)
        second = await makers.start(url, stage.url, 6)
        os.kill(first, signal.SIGTERM)
        assert await makers.wait(first) == 0
        await stage.runs.ended(run)
        os.kill(second, signal.SIGTERM)
        assert await makers.wait(second) == 0
    assert run.lease == 2
    await check(stage, run, 6, unheard=len(run.of("usage")) - 7)


async def test_twenty_runs_at_once_on_one_worker(stage: Stage) -> None:
    await prepared(stage)
    stage.runs.runs.clear()
    runs = [stage.make() for _ in range(20)]
    # No command ends before all twenty have begun.
    meet = f"echo x >> {LEDGER}; until [ $(wc -l < {LEDGER}) -ge 20 ]; do sleep 0.05; done"
    stage.worker(Script([Call("bash", {"command": meet})], ["done"]), slots=20)
    for run in runs:
        assert (await stage.runs.ended(run))["status"] == "completed"
        assert run.of("tool-result")[0]["output"] == "[exit code 0]"
    assert (await stage.sandbox.files.read(LEDGER)) == b"x\n" * 20
