"""The words of a project's files: `define_agent`, `define_tool`, `define_sandbox`.

A call checks what it is given and tells whoever is loading the project (`loading`) where it stands.
Outside of a load it only makes the value, so that definitions can be imported and tested like any code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from runtools.project import misfits
from runtools.sdk.shapes.definitions import (
    DEFAULT_MAX_ITERATIONS,
    AgentDefinition,
    Kind,
    Permission,
    SandboxDefinition,
    SandboxMode,
    Thinking,
    ToolHead,
    amiss,
)
from runtools.sdk.shapes.dev_urls import Access
from runtools.sdk.shapes.sandboxes import (
    DEFAULT_DISK_MB,
    DEFAULT_IDLE_TIMEOUT_SECONDS,
    DEFAULT_MEMORY_MB,
    DEFAULT_VCPUS,
    DESKTOP_MEMORY_MB,
    Isolation,
)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing a tool can do.

    Attributes:
        execute: called with the parameters by name, as `pydantic.validate_call` does it, and with
            ``credentials`` if it takes that; plain or async. What it returns is JSON.
        description: what a model is told; default: the first part of the function's docstring.
        parameters: JSON Schema of an object; default: made from the function's signature.
    """

    execute: Callable[..., Any]
    description: str | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as its file defines it. With its source it becomes a `ToolDefinition`."""

    head: ToolHead
    actions: Mapping[str, Action]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a `define_…`: what came of it, or what was wrong, and where it stands."""

    kind: Kind
    file: str
    line: int
    value: AgentDefinition | SandboxDefinition | Tool | None
    error: Exception | None


class Collector:
    """Takes in the calls while a project is loaded."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __enter__(self) -> Collector:
        _collectors.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _collectors.remove(self)


_collectors: list[Collector] = []
T = TypeVar("T", AgentDefinition, SandboxDefinition, Tool)


def define_agent(
    *,
    slug: str,
    name: str,
    model: str,
    description: str | None = None,
    system_prompt: str = "",
    tools: Sequence[str] = (),
    permissions: Mapping[str, Permission] | None = None,
    mcp_servers: Sequence[Mapping[str, Any]] = (),
    sandbox: str | None = None,
    sandbox_mode: SandboxMode = "shared",
    side_by_side: bool = False,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    presence_penalty: float | None = None,
    frequency_penalty: float | None = None,
    thinking: Thinking | None = None,
    max_total_tokens: int | None = None,
    max_cost_usd: float | None = None,
    max_seconds: int | None = None,
) -> AgentDefinition:
    """Define an agent.

    Args:
        slug: what it is known by: lower-case letters, digits and hyphens.
        name: what people see.
        model: an alias of the catalogue, or ``provider:id``.
        description: what it is for.
        system_prompt: its instructions.
        tools: slugs of tools it may call; the built-in ones are always there.
        permissions: which tools it may call: ``{"bash": "ask", "delete_*": "deny"}``; default: allow.
        mcp_servers: servers of more tools: ``{"name": "docs", "url": "https://…"}`` (with ``secret``: the
            name of one that is sent along), or ``{"name": "db", "command": ["npx", "…"]}``, which is run in
            the sandbox; ``tools`` names those of its tools that may be used.
        sandbox: slug of the standing sandbox it works in; default: one is made on demand.
        sandbox_mode: ``shared``: it works in that sandbox itself; ``fork``: in a fork for each thread.
        side_by_side: whether runs that share a sandbox work at the same time; else one after the other.
        max_iterations: rounds of thinking and tool calls, 1 to 100.
        max_tokens: bound of one answer, 1 to 128000.
        temperature: 0 to 2.
        top_p: 0 to 1.
        top_k: 1 or more.
        presence_penalty: -2 to 2.
        frequency_penalty: -2 to 2.
        thinking: whether it thinks before it answers, or how much: ``minimal``, ``low``, ``medium``,
            ``high``, ``xhigh`` or ``max``; default: what the model does by itself.
        max_total_tokens: how many tokens a run may take before it stops with ``limit_reached``.
        max_cost_usd: what it may cost, as far as the price is known.
        max_seconds: how long it may work; waiting for people does not count.

    Raises:
        pydantic.ValidationError: a field is malformed or out of its range.
    """
    fields = dict(locals())
    fields["permissions"] = {} if permissions is None else permissions
    fields["mcp_servers"] = [_plain(dict(server)) for server in mcp_servers]
    return _defined("agent", lambda: AgentDefinition.model_validate(_plain(fields), strict=True))


def define_sandbox(
    *,
    slug: str,
    name: str | None = None,
    template: str | None = None,
    vcpus: int = DEFAULT_VCPUS,
    memory_mb: int | None = None,
    disk_mb: int = DEFAULT_DISK_MB,
    env: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    idle_timeout_seconds: int = DEFAULT_IDLE_TIMEOUT_SECONDS,
    max_lifetime_seconds: int | None = None,
    internet: bool = True,
    egress: Mapping[str, Sequence[str]] | None = None,
    require_isolation: Isolation | None = None,
    dev_urls: Access | None = None,
    setup: Sequence[str] = (),
) -> SandboxDefinition:
    """Define a standing sandbox.

    Args:
        slug: what it is known by: lower-case letters, digits and hyphens.
        name: what people see.
        template: slug or slug@version; default base-debian.
        vcpus: 1 to 64.
        memory_mb: 256 or more; default: 1024, on a template named ``desktop-…`` 2048.
        disk_mb: 512 or more.
        env: variables of everything that runs in it; no place for secrets.
        secrets: names of secrets of the org (category custom, scope sandboxes or all) that are set in
            its environment, too.
        tags: to find it by.
        idle_timeout_seconds: quiet seconds until it is paused; 0: never.
        max_lifetime_seconds: seconds until it is paused in any case.
        internet: whether it reaches the internet.
        egress: which of it: ``{"allow": […], "deny": […]}`` of names, ``*.name``, addresses, networks;
            default: every public address.
        require_isolation: ``hardware`` refuses to run it under emulation.
        dev_urls: who may enter its ports by their URLs: ``public`` or ``private``; default: what the org
            has chosen.
        setup: shell lines, run once in order when it is made, and kept in its snapshot.

    Raises:
        pydantic.ValidationError: a field is malformed or out of its range.
    """
    fields = dict(locals())
    if memory_mb is None:
        is_desktop = (template or "").startswith("desktop-")
        fields["memory_mb"] = DESKTOP_MEMORY_MB if is_desktop else DEFAULT_MEMORY_MB
    for field in ("env", "tags", "egress"):
        fields[field] = {} if fields[field] is None else fields[field]
    return _defined(
        "sandbox", lambda: SandboxDefinition.model_validate(_plain(fields), strict=True)
    )


def define_tool(
    *,
    name: str,
    actions: Mapping[str, Callable[..., Any] | Action],
    description: str = "",
    category: str | None = None,
    credentials: Mapping[str, Any] | None = None,
) -> Tool:
    """Define a tool of your own. It runs in the tools service, never in a sandbox.

    Args:
        name: what it is known by: lower-case letters, digits and hyphens; no built-in tool's.
        actions: what it can do, at least one: typed functions, or `Action` with a schema of its own.
        description: what a model is told of it.
        category: where it is listed.
        credentials: what it must be given: ``{"required": […], "schema": {field: {"type": "string",
            "description": …}}, "oauth": {"provider", "scopes", "credentialMapping"}}``; what ``required``
            and ``credentialMapping`` name is in ``schema``.

    Raises:
        pydantic.ValidationError: a field is malformed.
    """

    def make() -> Tool:
        fields = {"name": name, "description": description, "category": category}
        head = ToolHead.model_validate({**fields, "credentials": credentials}, strict=True)
        misfits.check("define_tool", amiss(head))
        wrapped = {
            word: act if isinstance(act, Action) else Action(act) for word, act in actions.items()
        }
        return Tool(head, wrapped)

    return _defined("tool", make)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Sequences as lists: a tuple is as good in a file; a string in its place is a mistake."""
    return {
        field: _plain(value)
        if isinstance(value, dict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for field, value in fields.items()
    }


def _defined(kind: Kind, make: Callable[[], T]) -> T:
    frame = sys._getframe(2)  # noqa: SLF001 - the only way to know where a definition stands
    where = (frame.f_code.co_filename, frame.f_lineno)
    try:
        value = make()
    except Exception as exc:
        for collector in _collectors:
            collector.calls.append(Call(kind, *where, None, exc))
        raise
    for collector in _collectors:
        collector.calls.append(Call(kind, *where, value, None))
    return value
