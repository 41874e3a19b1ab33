"""A server of tools inside the sandbox: what a lease before left is ended before it is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from runtools.errors import SandboxPaused
from runtools.platform.agents.tools.inside import Resident
from runtools.platform.agents.tools.room import Room
from runtools.sdk.shapes.definitions import McpServer


class Sleeper:
    """A sandbox that was paused before it could say how its processes stand, with one in it."""

    def __init__(self) -> None:
        self.processes, self.did = self, list[str]()

    async def list(self) -> Any:
        if "resume" not in self.did:
            raise SandboxPaused("it is paused, and nobody knows")
        return [SimpleNamespace(id="srv.1.1", state="running", kill=self._kill)]

    async def _kill(self) -> None:
        self.did.append("kill")

    async def resume(self, *, timeout_seconds: float) -> None:
        assert timeout_seconds <= 60
        self.did.append("resume")

    async def start(self, command: Any, *, env: Any, process_id: str) -> str:
        self.did.append(f"start {process_id}")
        return process_id


async def test_where_nobody_knows_what_runs_it_is_woken() -> None:
    box = Sleeper()

    async def place() -> Any:
        return box

    server = McpServer(name="count", command=["count"])
    await Resident(server, Room(place), "srv", 2)._start(await place())
    assert box.did == ["resume", "kill", "start srv.2.1"]
