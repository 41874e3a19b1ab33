"""Deployed agents and the work they are given, custom tools and standing sandboxes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from runtools.sdk import wire
from runtools.sdk.runs import AsyncAgentRun, Config, OutputSchema, begin, request
from runtools.sdk.shapes.deploys import (
    Agent,
    AgentVersion,
    StandingSandbox,
    Tool,
    ToolVersion,
    Version,
)
from runtools.sdk.shapes.runs import Run, RunEvent, RunImage, RunMessage
from runtools.sdk.transport import AsyncTransport

_PAGE = 100


class AsyncAgents:
    """Deployed agents: ``rt.agents``. A slug is one project's own: where several have it, say which."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self, *, project_id: str | None = None) -> AsyncGenerator[Agent, None]:
        """The org's agents by slug, or one project's."""
        pages = self._transport.pages("/agents", [("projectId", project_id)], _PAGE)
        async with aclosing(pages) as items:
            async for item in items:
                yield wire.shape(Agent, item)

    async def get(self, ref: str, *, project_id: str | None = None) -> Agent:
        """An agent by slug or id, with the version in force."""
        answer = await self._transport.call("GET", _path("agents", ref), query=_in(project_id))
        return wire.shape(Agent, answer.data)

    async def delete(self, ref: str, *, project_id: str | None = None) -> None:
        """Delete an agent. The next deploy of files that define it makes it again."""
        await self._transport.call("DELETE", _path("agents", ref), query=_in(project_id))

    async def versions(
        self, ref: str, *, project_id: str | None = None
    ) -> AsyncGenerator[AgentVersion, None]:
        """Its versions, the newest first."""
        path = f"{_path('agents', ref)}/versions"
        pages = self._transport.pages(path, [("projectId", project_id)], _PAGE)
        async with aclosing(pages) as items:
            async for item in items:
                yield wire.shape(AgentVersion, item)

    async def version(
        self, ref: str, version: int | str, *, project_id: str | None = None
    ) -> AgentVersion:
        """One version, by number or id. It never changes."""
        path = f"{_path('agents', ref)}/versions/{wire.segment(str(version))}"
        answer = await self._transport.call("GET", path, query=_in(project_id))
        return wire.shape(AgentVersion, answer.data)

    async def rollback(
        self, ref: str, version: int | None = None, *, project_id: str | None = None
    ) -> Agent:
        """Put another version in force: that one, or the one before the one in force."""
        path = f"{_path('agents', ref)}/rollback"
        body = {"version": version}
        answer = await self._transport.call("POST", path, query=_in(project_id), body=body)
        return wire.shape(Agent, answer.data)

    async def run(
        self,
        slug: str,
        message: str | Sequence[RunMessage],
        *,
        thread_id: str | None = None,
        sandbox_id: str | None = None,
        images: Sequence[RunImage] = (),
        config: Config | None = None,
        output_schema: OutputSchema | None = None,
        metadata: Mapping[str, str] | None = None,
        project: str | None = None,
        timeout: float | None = None,
    ) -> Run:
        """Give an agent work and wait for its end; ``output`` of the result is the last text.

        Args:
            slug: the agent's.
            message: what to do; or a conversation, which ends with the user's message.
            thread_id: the conversation that it goes on with; default: a new one.
            sandbox_id: the sandbox to work in, whatever the agent says.
            images: pictures beside the message.
            config: what this run does otherwise: ``{"max_iterations": 50, "max_cost_usd": 0.5}``.
            output_schema: a pydantic model, or the JSON Schema of an object, that it must end with; the
                result has it in ``structured``.
            metadata: labels of one's own.
            project: its id or name, where several have the slug.
            timeout: seconds after which waiting ends, and the run goes on; default: none.

        Raises:
            RunFailed: it has failed; the message says why.
            DeadlineExceeded: it has not ended when the time is up.
        """
        begun = await self.start(
            slug,
            message,
            thread_id=thread_id,
            sandbox_id=sandbox_id,
            images=images,
            config=config,
            output_schema=output_schema,
            metadata=metadata,
            project=project,
        )
        return await begun.wait(timeout)

    async def stream(
        self,
        slug: str,
        message: str | Sequence[RunMessage],
        *,
        thread_id: str | None = None,
        sandbox_id: str | None = None,
        images: Sequence[RunImage] = (),
        config: Config | None = None,
        output_schema: OutputSchema | None = None,
        metadata: Mapping[str, str] | None = None,
        project: str | None = None,
    ) -> AsyncGenerator[RunEvent, None]:
        """Give an agent work and get its events as they come, ``done`` at last.

        The arguments are those of `run`. Leaving the loop leaves the run alone.
        """
        begun = await self.start(
            slug,
            message,
            thread_id=thread_id,
            sandbox_id=sandbox_id,
            images=images,
            config=config,
            output_schema=output_schema,
            metadata=metadata,
            project=project,
        )
        async with aclosing(begun.events()) as events:
            async for event in events:
                yield event

    async def start(
        self,
        slug: str,
        message: str | Sequence[RunMessage],
        *,
        thread_id: str | None = None,
        sandbox_id: str | None = None,
        images: Sequence[RunImage] = (),
        config: Config | None = None,
        output_schema: OutputSchema | None = None,
        metadata: Mapping[str, str] | None = None,
        project: str | None = None,
    ) -> AsyncAgentRun:
        """Give an agent work and return at once, with a handle of the run; arguments as of `run`."""
        body = request(
            slug,
            message,
            project=project,
            thread_id=thread_id,
            sandbox_id=sandbox_id,
            images=images,
            config=config,
            output_schema=output_schema,
            metadata=metadata,
        )
        return await begin(self._transport, body)


class AsyncTools:
    """Deployed custom tools: ``rt.tools``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self, *, project_id: str | None = None) -> AsyncGenerator[Tool, None]:
        """The org's custom tools by name, or one project's."""
        pages = self._transport.pages("/tools", [("projectId", project_id)], _PAGE)
        async with aclosing(pages) as items:
            async for item in items:
                yield wire.shape(Tool, item)

    async def get(self, ref: str, *, project_id: str | None = None) -> Tool:
        """A tool by name or id."""
        answer = await self._transport.call("GET", _path("tools", ref), query=_in(project_id))
        return wire.shape(Tool, answer.data)

    async def delete(self, ref: str, *, project_id: str | None = None) -> None:
        """Delete a tool that no agent of its project names."""
        await self._transport.call("DELETE", _path("tools", ref), query=_in(project_id))

    async def versions(
        self, ref: str, *, project_id: str | None = None
    ) -> AsyncGenerator[Version, None]:
        """Its versions, the newest first, without their code."""
        path = f"{_path('tools', ref)}/versions"
        pages = self._transport.pages(path, [("projectId", project_id)], _PAGE)
        async with aclosing(pages) as items:
            async for item in items:
                yield wire.shape(Version, item)

    async def version(
        self, ref: str, version: int | str, *, project_id: str | None = None
    ) -> ToolVersion:
        """One version with its code, by number or id."""
        path = f"{_path('tools', ref)}/versions/{wire.segment(str(version))}"
        answer = await self._transport.call("GET", path, query=_in(project_id))
        return wire.shape(ToolVersion, answer.data)

    async def execute(
        self, ref: str, action: str, params: dict[str, Any], *, project_id: str | None = None
    ) -> Any:
        """Call an action of a tool.

        Raises:
            ToolsUnavailable: the platform has no tools service to run it.
        """
        path = f"{_path('tools', ref)}/execute"
        body = {"action": action, "params": params}
        return (await self._transport.call("POST", path, query=_in(project_id), body=body)).data


class AsyncStandingSandboxes:
    """Which sandbox stands for a slug: ``rt.standing_sandboxes``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self, *, project_id: str | None = None) -> AsyncGenerator[StandingSandbox, None]:
        """The org's standing sandboxes by slug, or one project's."""
        pages = self._transport.pages("/standing-sandboxes", [("projectId", project_id)], _PAGE)
        async with aclosing(pages) as items:
            async for item in items:
                yield wire.shape(StandingSandbox, item)

    async def get(self, ref: str, *, project_id: str | None = None) -> StandingSandbox:
        """A standing sandbox by slug; its ``sandbox_id`` is what `rt.sandboxes.get` takes."""
        path = _path("standing-sandboxes", ref)
        answer = await self._transport.call("GET", path, query=_in(project_id))
        return wire.shape(StandingSandbox, answer.data)


def _path(noun: str, ref: str) -> str:
    return f"/{noun}/{wire.segment(ref)}"


def _in(project_id: str | None) -> list[tuple[str, object]]:
    return [("projectId", project_id)]
