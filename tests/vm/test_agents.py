"""Agents on real machines: a worker that is killed, and what never enters the machine."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from runtools import AsyncRunTools
from runtools.sdk.shapes.definitions import AgentDefinition, McpServer
from runtools.testing import small_server
from runtools.testing.fake_provider import Refuse, provider
from runtools.testing.real_platform import Platform
from runtools.testing.scripted_model import Call

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

KEY = "sk-vm-" + secrets.token_hex(24)
TOOL_KEY = "tok-vm-" + secrets.token_hex(24)
MARK = "mark-" + secrets.token_hex(8)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rt(platform: Platform) -> AsyncIterator[AsyncRunTools]:
    """A client of the platform."""
    known = json.loads((platform.home / "client.json").read_text())
    async with AsyncRunTools(known["apiKey"], known["apiUrl"]) as made:
        yield made


async def deployed(rt: AsyncRunTools, slug: str, model: str, *servers: McpServer) -> None:
    """An agent in a project of its own."""
    agent = AgentDefinition(slug=slug, name="VM", model=model, mcp_servers=list(servers))
    plan = await rt.deploys.plan(f"vm-{slug}", [agent])
    deploy = await rt.deploys.create(plan, [agent])
    async with asyncio.timeout(60):
        while (await rt.deploys.get(deploy.id)).state == "running":
            await asyncio.sleep(0.05)


def found_in(folder: Path, needle: bytes) -> list[str]:
    """The files below a folder that hold some bytes."""
    found = []
    for file in folder.rglob("*"):
        if not file.is_file() or file.is_symlink() or not file.stat().st_size:
            continue
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            if data.find(needle) >= 0:
                found.append(str(file.relative_to(folder)))
    return found


async def test_no_key_of_a_model_is_ever_in_the_machine(
    platform: Platform, rt: AsyncRunTools
) -> None:
    """Nor one of a server of tools, of the operator's environment, or of the run."""
    await rt.secrets.set("VM_MODEL_KEY", KEY, category="provider")
    await rt.secrets.set("VM_TOOL_KEY", TOOL_KEY, category="tool")
    needles = (KEY, TOOL_KEY, os.environ["EXA_API_KEY"], "rt_run_")
    look = f"echo {MARK} > /root/mark; sync; cat /proc/[0-9]*/environ | tr '\\0' '\\n'"
    server = Path(small_server.__file__).read_text()
    small = McpServer(name="small", command=["python3", "-u", "-c", server])
    calls = [Call("bash", {"command": look}), Call("small__environment", {})]
    async with provider("chat", calls, ["done"]) as fake, provider("chat", Refuse(404)) as tools:
        outside = McpServer(name="outside", url=f"{tools.url}/mcp", secret="VM_TOOL_KEY")
        slug = f"vmfake-{secrets.token_hex(4)}"  # the home is kept between runs
        await rt.models.endpoints.create(slug, fake.url, secret="VM_MODEL_KEY")
        await deployed(rt, "keyless", f"{slug}:any", small, outside)
        run = await rt.agents.run("keyless", "Look around.", timeout=120)
        assert run.status == "completed"
        assert fake.asked[0].headers["authorization"] == f"Bearer {KEY}"
        seen = json.dumps(fake.asked[1].body)
        assert tools.asked[0].headers["authorization"] == f"Bearer {TOOL_KEY}"
    assert "PATH=" in seen
    assert '\\"PATH\\"' in seen, "the server of tools inside has answered"
    assert run.sandbox_id is not None
    assert [one for one in needles if one in seen] == []
    sandbox = await rt.sandboxes.get(run.sandbox_id)
    await sandbox.pause()  # its memory lies on the disk now
    folder = platform.home / "host" / "sandboxes" / run.sandbox_id
    there = {Path(one).name for one in found_in(folder, MARK.encode())}
    assert {"ram", "overlay.img"} <= there, "what is in its memory and on its disk is found"
    assert {one: found_in(folder, one.encode()) for one in needles} == {one: [] for one in needles}
    await sandbox.destroy()


async def test_the_demo_goes_on_when_its_worker_is_killed(
    platform: Platform, rt: AsyncRunTools, killed: Callable[[str], None]
) -> None:
    await deployed(rt, "demo-vm", "demo")
    run = await rt.agents.start("demo-vm", "go")
    async for event in run.events():
        if event.type == "message" and event.data["turn"] == 2:
            break
    await asyncio.to_thread(killed, "worker")
    ended = await run.wait(timeout=180)
    assert ended.status == "completed"
    assert ended.output is not None
    assert "Hello from a sandbox! 1 visitor so far." in ended.output
    assert ended.sandbox_id is not None
    await (await rt.sandboxes.get(ended.sandbox_id)).destroy()
