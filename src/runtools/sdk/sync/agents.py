# Generated from sdk/agents.py by scripts/generate_sync.py: edit that, then run it.
"""Deployed agents and the work they are given, custom tools and standing sandboxes."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

from runtools.sdk import wire
from runtools.sdk.shapes.deploys import (
    Agent,
    AgentVersion,
    StandingSandbox,
    Tool,
    ToolVersion,
    Version,
)
from runtools.sdk.shapes.runs import Run, RunEvent, RunImage, RunMessage
from runtools.sdk.sync.runs import AgentRun, Config, OutputSchema, begin, request
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class Agents:
    """Deployed agents: ``rt.agents``. A slug is one project's own: where several have it, say which."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, project_id: str | None = None) -> Generator[Agent, None, None]:
        """The org's agents by slug, or one project's."""
        pages = self._transport.pages("/agents", [("projectId", project_id)], _PAGE)
        with closing(pages) as items:
            for item in items:
                yield wire.shape(Agent, item)

    def get(self, ref: str, *, project_id: str | None = None) -> Agent:
        """An agent by slug or id, with the version in force."""
        answer = self._transport.call("GET", _path("agents", ref), query=_in(project_id))
        return wire.shape(Agent, answer.data)

    def delete(self, ref: str, *, project_id: str | None = None) -> None:
        """Delete an agent. The next deploy of files that define it makes it again."""
        self._transport.call("DELETE", _path("agents", ref), query=_in(project_id))

    def versions(
        self, ref: str, *, project_id: str | None = None
    ) -> Generator[AgentVersion, None, None]:
        """Its versions, the newest first."""
        path = f"{_path('agents', ref)}/versions"
        pages = self._transport.pages(path, [("projectId", project_id)], _PAGE)
        with closing(pages) as items:
            for item in items:
                yield wire.shape(AgentVersion, item)

    def version(
        self, ref: str, version: int | str, *, project_id: str | None = None
    ) -> AgentVersion:
        """One version, by number or id. It never changes."""
        path = f"{_path('agents', ref)}/versions/{wire.segment(str(version))}"
        answer = self._transport.call("GET", path, query=_in(project_id))
        return wire.shape(AgentVersion, answer.data)

    def rollback(
        self, ref: str, version: int | None = None, *, project_id: str | None = None
    ) -> Agent:
        """Put another version in force: that one, or the one before the one in force."""
        path = f"{_path('agents', ref)}/rollback"
        body = {"version": version}
        answer = self._transport.call("POST", path, query=_in(project_id), body=body)
        return wire.shape(Agent, answer.data)

    def run(
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
        begun = self.start(
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
        return begun.wait(timeout)

    def stream(
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
    ) -> Generator[RunEvent, None, None]:
        """Give an agent work and get its events as they come, ``done`` at last.

        The arguments are those of `run`. Leaving the loop leaves the run alone.
        """
        begun = self.start(
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
        with closing(begun.events()) as events:
            yield from events

    def start(
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
    ) -> AgentRun:
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
        return begin(self._transport, body)


class Tools:
    """Deployed custom tools: ``rt.tools``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, project_id: str | None = None) -> Generator[Tool, None, None]:
        """The org's custom tools by name, or one project's."""
        pages = self._transport.pages("/tools", [("projectId", project_id)], _PAGE)
        with closing(pages) as items:
            for item in items:
                yield wire.shape(Tool, item)

    def get(self, ref: str, *, project_id: str | None = None) -> Tool:
        """A tool by name or id."""
        answer = self._transport.call("GET", _path("tools", ref), query=_in(project_id))
        return wire.shape(Tool, answer.data)

    def delete(self, ref: str, *, project_id: str | None = None) -> None:
        """Delete a tool that no agent of its project names."""
        self._transport.call("DELETE", _path("tools", ref), query=_in(project_id))

    def versions(
        self, ref: str, *, project_id: str | None = None
    ) -> Generator[Version, None, None]:
        """Its versions, the newest first, without their code."""
        path = f"{_path('tools', ref)}/versions"
        pages = self._transport.pages(path, [("projectId", project_id)], _PAGE)
        with closing(pages) as items:
            for item in items:
                yield wire.shape(Version, item)

    def version(
        self, ref: str, version: int | str, *, project_id: str | None = None
    ) -> ToolVersion:
        """One version with its code, by number or id."""
        path = f"{_path('tools', ref)}/versions/{wire.segment(str(version))}"
        answer = self._transport.call("GET", path, query=_in(project_id))
        return wire.shape(ToolVersion, answer.data)

    def execute(
        self, ref: str, action: str, params: dict[str, Any], *, project_id: str | None = None
    ) -> Any:
        """Call an action of a tool.

        Raises:
            ToolsUnavailable: the platform has no tools service to run it.
        """
        path = f"{_path('tools', ref)}/execute"
        body = {"action": action, "params": params}
        return (self._transport.call("POST", path, query=_in(project_id), body=body)).data


class StandingSandboxes:
    """Which sandbox stands for a slug: ``rt.standing_sandboxes``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, project_id: str | None = None) -> Generator[StandingSandbox, None, None]:
        """The org's standing sandboxes by slug, or one project's."""
        pages = self._transport.pages("/standing-sandboxes", [("projectId", project_id)], _PAGE)
        with closing(pages) as items:
            for item in items:
                yield wire.shape(StandingSandbox, item)

    def get(self, ref: str, *, project_id: str | None = None) -> StandingSandbox:
        """A standing sandbox by slug; its ``sandbox_id`` is what `rt.sandboxes.get` takes."""
        path = _path("standing-sandboxes", ref)
        answer = self._transport.call("GET", path, query=_in(project_id))
        return wire.shape(StandingSandbox, answer.data)


def _path(noun: str, ref: str) -> str:
    return f"/{noun}/{wire.segment(ref)}"


def _in(project_id: str | None) -> list[tuple[str, object]]:
    return [("projectId", project_id)]
