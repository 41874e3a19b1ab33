"""A platform with agents on it, and a worker that a test drives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from runtools.errors import Conflict
from runtools.platform.core.ports.worker import Assignment
from runtools.testing.api_world import World
from runtools.testing.fake_worker import FakeWorker, Held
from runtools.testing.tenancy.org import Org
from runtools.testing.tenancy.records import deployed

AGENT = {"slug": "coder", "name": "Coder", "model": "demo"}
MCP = [{"name": "x", "url": "https://x.example/mcp", "secret": "MCP_KEY"}]
INSIDE = [{"name": "small", "command": ["small"]}]
AGENTS: list[dict[str, Any]] = [
    AGENT,
    {**AGENT, "slug": "served", "mcpServers": INSIDE},
    {**AGENT, "slug": "shared", "sandbox": "box"},
    {**AGENT, "slug": "forker", "sandbox": "box", "sandboxMode": "fork"},
    {**AGENT, "slug": "beside", "sandbox": "box", "sideBySide": True},
    {**AGENT, "slug": "claude", "model": "claude-haiku", "maxTotalTokens": 900, "mcpServers": MCP},
]


@dataclass
class Stage:
    """A platform, and the worker."""

    world: World
    org: Org
    worker: FakeWorker

    async def run(self, message: str = "Do it.", agent: str = "coder", **more: Any) -> Any:
        """A new run, at once."""
        body = {"agentSlug": agent, "message": message, **more}
        answer = await self.org.http.post("/v1/run?waitSeconds=0", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()["data"]

    async def taken(
        self, message: str = "Do it.", agent: str = "coder", **more: Any
    ) -> tuple[Held, Assignment]:
        """A new run that the worker drives."""
        made = await self.run(message, agent, **more)
        return await self.take(made["id"])

    async def next(self) -> tuple[Held, Assignment]:
        """Take the next run that is there to be taken."""
        while True:
            offer = await self.worker.offered()
            try:
                given = await self.worker.take(offer)
            except Conflict:
                continue
            return Held(run_id=offer.run_id, lease=offer.lease), given

    async def take(self, run_id: str) -> tuple[Held, Assignment]:
        """Take a run that is offered; what is left of other tests is ended."""
        while True:
            run, given = await self.next()
            if run.run_id == run_id:
                return run, given
            await self.worker.finish(run)

    async def get(self, run_id: str) -> Any:
        """How a run stands."""
        return await self.org.ask("GET", f"/v1/runs/{run_id}")

    async def events(self, run_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Its log, when it has ended."""
        return [one async for one in follow(self.org.http, run_id, after)]


async def furnish(world: World) -> Org:
    """The agents, and the sandbox that some of them share."""
    org = Org(world, world.org, "amber", world.http)
    await deployed(org, agents=AGENTS, sandboxes=[{"slug": "box"}])
    return org


async def follow(http: httpx.AsyncClient, run_id: str, after: int = 0) -> AsyncIterator[Any]:
    """The events of a run as they come, until the stream ends."""
    async with http.stream("GET", f"/v1/runs/{run_id}/events?after={after}") as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))
