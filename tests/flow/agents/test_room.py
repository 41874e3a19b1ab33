"""Where its host is full a run's tool waits for room: it does not fail, and says what it waits for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.flow.agents.conftest import Stage

from runtools import AsyncRunTools
from runtools.sdk.sandbox import AsyncSandbox
from runtools.testing.fake_runs import FakeRun
from runtools.testing.local_platform import local_platform
from runtools.testing.scripted_model import Call, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOK = [Call("bash", {"command": "echo there"})]
Both = Callable[[AsyncRunTools], Awaitable[tuple[AsyncSandbox, AsyncSandbox]]]
"""Makes a sandbox that has the room, and one that waits for it or will."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, str]]:
    """A platform with room for one."""
    folder: Path = tmp_path_factory.mktemp("full")
    async with local_platform(folder, max_sandboxes=1) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def rt(
    full: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncRunTools]:
    """A client; a call waits for room, and a look for news, for a moment only."""
    monkeypatch.setattr("runtools.platform.host.engine.acts.queued.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("runtools.sdk.sandbox._WAIT_SECONDS", 1)
    async with AsyncRunTools(full[1], full[0]) as made:
        yield made


async def asleep(rt: AsyncRunTools) -> tuple[AsyncSandbox, AsyncSandbox]:
    """One that sleeps, and its place is taken."""
    slept = await (await rt.sandboxes.create()).pause()
    return await rt.sandboxes.create(), slept


async def unborn(rt: AsyncRunTools) -> tuple[AsyncSandbox, AsyncSandbox]:
    """One that is not made yet."""
    ran = await rt.sandboxes.create()
    return ran, await rt.sandboxes.create(wait_for_ready=False)


def told(run: FakeRun) -> str:
    """What was shown while its tools were under way."""
    return "".join(one.data["text"] for one in run.deltas if one.type == "tool-output-delta")


async def begun(stage: Stage, script: Script) -> FakeRun:
    """A run that waits for room."""
    run = stage.make()
    stage.worker(script)
    await stage.runs.until(lambda: "waits for room on its host: place 1" in told(run))
    return run


@pytest.mark.parametrize("waiting", [asleep, unborn])
async def test_a_tool_is_made_once_there_is_room(
    full: tuple[str, str], rt: AsyncRunTools, waiting: Both
) -> None:
    ran, waits = await waiting(rt)
    stage = Stage(*full, waits)
    try:
        run = await begun(stage, Script(LOOK, ["done"]))
        assert not run.of("tool-result")
        await ran.destroy()
        assert (await stage.runs.ended(run))["status"] == "completed"
        [result] = run.of("tool-result")
        assert (result["output"], result["failed"]) == ("there\n[exit code 0]", False)
        assert "place 1]" not in result["output"]
    finally:
        await stage.close()
        await waits.destroy()


async def test_a_cancel_and_the_end_of_its_time_are_not_waited_for(
    full: tuple[str, str], rt: AsyncRunTools
) -> None:
    ran, waits = await unborn(rt)
    stage = Stage(*full, waits)
    try:
        run = await begun(stage, Script(LOOK, ["never"]))
        await stage.runs.cancel(run)
        assert (await stage.runs.ended(run))["status"] == "cancelled"
        short = stage.make(limits={"max_seconds": 1})
        done = await stage.runs.ended(short)
        assert (done["status"], done["limit"].split(":")[0]) == ("limit_reached", "max_seconds")
    finally:
        await stage.close()
        await waits.destroy()
        await ran.destroy()
