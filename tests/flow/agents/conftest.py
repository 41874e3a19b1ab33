"""A worker over the api's side in memory; its tools work in a sandbox with the real guest agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio
from pydantic_ai.models import Model

from runtools import AsyncRunTools
from runtools.platform.agents.held import Means
from runtools.platform.agents.models.build import Models
from runtools.platform.agents.models.http import client
from runtools.platform.agents.worker import Worker
from runtools.platform.core.ports.worker import ModelAccess
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.outbound import Outbound, networks
from runtools.platform.kit.tracing import OFF, Tracing
from runtools.sdk.sandbox import AsyncSandbox
from runtools.testing.fake_runs import FakeLink, FakeRun, FakeRuns
from runtools.testing.local_platform import local_platform
from runtools.testing.scripted_model import Script


class Stage:
    """Runs, and workers that drive them."""

    def __init__(self, url: str, key: str, sandbox: AsyncSandbox) -> None:
        self.url, self.key, self.sandbox = url, key, sandbox
        self.runs = FakeRuns()
        self.outbound = Outbound(networks("127.0.0.0/8"))
        self.workers: list[tuple[Worker, FakeLink]] = []
        self.search_url = "http://127.0.0.1:1/search"
        self.clock: Any = SystemClock()
        self.tracing: Tracing = OFF

    def worker(
        self,
        build: Script | Callable[[ModelAccess], Model],
        slots: int = 8,
        after: Callable[[FakeRun], None] | None = None,
    ) -> tuple[Worker, FakeLink]:
        """A worker that is there."""
        made = build.model() if isinstance(build, Script) else None
        worker, link = Worker(slots), FakeLink(self.runs, after)
        means = Means(
            link,
            (lambda _: made) if made is not None else build,
            lambda token: AsyncRunTools(token, self.url),
            self.outbound,
            self.clock,
            self.search_url,
            self.tracing,
        )
        worker.begin(means)
        link.join(worker.told)
        self.workers.append((worker, link))
        return worker, link

    def make(self, message: str = "do it", **more: Any) -> FakeRun:
        """A run in the sandbox."""
        return self.runs.make(message, sandbox_id=self.sandbox.id, token=self.key, **more)

    async def played(self, script: Script, **more: Any) -> FakeRun:
        """A run that has ended, driven by a worker of its own."""
        await self._end_workers()
        run = self.make(**more)
        self.worker(script)
        await self.runs.ended(run)
        return run

    async def close(self) -> None:
        """Everything ends."""
        await self._end_workers()
        self.outbound.close()

    async def _end_workers(self) -> None:
        for worker, link in self.workers:
            link.cut()
            await worker.abandon()
        self.workers.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: Any) -> AsyncIterator[tuple[str, str, AsyncSandbox]]:
    """A platform with a sandbox."""
    folder: Path = tmp_path_factory.mktemp("platform")
    async with local_platform(folder) as (url, key), AsyncRunTools(key, url) as rt:
        yield url, key, await rt.sandboxes.create()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(place: tuple[str, str, AsyncSandbox]) -> AsyncIterator[Stage]:
    """A stage of the test's own."""
    made = Stage(*place)
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def models(stage: Stage) -> AsyncIterator[Models]:
    """Models that may speak to the loopback."""
    made = Models(lambda: client(stage.outbound))
    yield made
    await made.close()
