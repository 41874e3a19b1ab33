"""Where its host is full a run's tools wait for room: they do not fail, and say what they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.flow.agents.conftest import Stage

from runtools import AsyncRunTools
from runtools.sdk.sandbox import AsyncSandbox
from runtools.testing import small_server
from runtools.testing.fake_runs import FakeRun
from runtools.testing.local_platform import local_platform
from runtools.testing.scripted_model import Call, Do, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOK = [Call("bash", {"command": "echo there"})]
SERVER = ["python3", "-u", "-c", Path(small_server.__file__).read_text()]
SERVED = {"mcp_servers": [{"name": "small", "command": SERVER}]}
_SOON = 10.0
Both = Callable[[AsyncRunTools], Awaitable[tuple[AsyncSandbox, AsyncSandbox]]]
"""Makes a sandbox that has the room, and one that waits for it or will."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, str]]:
    """A platform with room for one."""
    folder: Path = tmp_path_factory.mktemp("full")
    async with local_platform(folder, max_sandboxes=1) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def rt(full: tuple[str, str]) -> AsyncIterator[AsyncRunTools]:
    """A client."""
    async with AsyncRunTools(full[1], full[0]) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call waits for room, and a look for news, for a moment only."""
    monkeypatch.setattr("runtools.platform.host.engine.acts.queued.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("runtools.sdk.sandbox._WAIT_SECONDS", 1)


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


@pytest.mark.usefixtures("impatient")
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


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("waiting", [asleep, unborn])
async def test_a_server_of_tools_is_started_once_there_is_room(
    full: tuple[str, str], rt: AsyncRunTools, waiting: Both
) -> None:
    ran, waits = await waiting(rt)
    stage = Stage(*full, waits)
    try:
        script = Script([Call("small__count", {})], ["done"])
        run = stage.make(agent=SERVED)
        stage.worker(script)
        await asyncio.sleep(1)
        assert not script.asked
        await ran.destroy()
        assert (await stage.runs.ended(run))["status"] == "completed"
        assert [one["output"] for one in run.of("tool-result")] == ["1"]
    finally:
        await stage.close()
        await waits.destroy()


@pytest.mark.usefixtures("impatient")
async def test_a_call_of_a_server_waits_for_room(full: tuple[str, str], rt: AsyncRunTools) -> None:
    """Its sandbox was paused after it was started."""
    box, others = await rt.sandboxes.create(), []
    stage = Stage(*full, box)

    async def crowd_out() -> None:
        await box.pause()
        others.append(await rt.sandboxes.create())

    try:
        count = Call("small__count", {})
        script = Script([count], [Do(crowd_out), count], ["done"])
        run = stage.make(agent=SERVED)
        stage.worker(script)
        await stage.runs.until(lambda: "waits for room on its host: place 1" in told(run))
        await others[0].destroy()
        assert (await stage.runs.ended(run))["status"] == "completed"
        assert [one["output"] for one in run.of("tool-result")] == ["1", "2"]
    finally:
        await stage.close()
        await box.destroy()


async def test_a_cancel_and_the_end_of_its_time_are_not_waited_for(
    full: tuple[str, str], rt: AsyncRunTools
) -> None:
    ran, waits = await unborn(rt)
    stage = Stage(*full, waits)
    try:
        for more in ({}, {"agent": SERVED}):
            run = stage.make(**more)
            stage.worker(Script(LOOK, ["never"]))
            await stage.runs.until(
                lambda run=run, more=more: bool(more) or "waits for room" in told(run)
            )
            async with asyncio.timeout(_SOON):
                await stage.runs.cancel(run)
                assert (await stage.runs.ended(run))["status"] == "cancelled"
                short = stage.make(limits={"max_seconds": 1}, **more)
                done = await stage.runs.ended(short)
            assert (done["status"], done["limit"].split(":")[0]) == ("limit_reached", "max_seconds")
    finally:
        await stage.close()
        await waits.destroy()
        await ran.destroy()


async def test_what_waits_for_room_when_its_run_is_cancelled_does_not_begin(
    full: tuple[str, str], rt: AsyncRunTools
) -> None:
    """The platform has taken the command already, and holds it until the sandbox goes on."""
    ran, waits = await asleep(rt)
    stage = Stage(*full, waits)
    try:
        run = stage.make()
        stage.worker(Script([Call("bash", {"command": "echo it ran >/workspace/ran"})], ["never"]))
        async with asyncio.timeout(60):
            while (await waits.refresh()).operation != "queued":
                await asyncio.sleep(0.02)
        async with asyncio.timeout(_SOON):
            await stage.runs.cancel(run)
            assert (await stage.runs.ended(run))["status"] == "cancelled"
        await ran.destroy()
        await waits.wait_until_running()
        listed = await waits.exec("ls /workspace")
        assert listed.stdout == ""
        assert await waits.processes.list() == []
    finally:
        await stage.close()
        await waits.destroy()
        await ran.destroy()
