"""How deployed agents, tools and standing sandboxes look to people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from runtools.cli import words
from runtools.cli.plan_looks import commit
from runtools.cli.tables import facts, table
from runtools.sdk.shapes.deploys import Agent, StandingSandbox, Tool, Version

_FAINT = "bright_black"


def agents(found: Sequence[Agent]) -> RenderableType:
    """Agents, a line each."""
    if not found:
        return Text("no agents; `runtools init` and `runtools deploy` make one", style=_FAINT)
    made = table("AGENT", "PROJECT", "MODEL", "SANDBOX", "VERSION", right=["VERSION"])
    for one in found:
        said = one.definition
        version = _version(one.version, one.latest_version)
        made.add_row(one.slug, one.project, said.model, said.sandbox or "-", version)
    return made


def agent(one: Agent) -> RenderableType:
    """All about an agent."""
    said = one.definition
    sampling = {
        "max_tokens": said.max_tokens,
        "temperature": said.temperature,
        "top_p": said.top_p,
        "top_k": said.top_k,
        "presence_penalty": said.presence_penalty,
        "frequency_penalty": said.frequency_penalty,
    }
    return facts(
        ("agent", f"{one.slug} ({one.id})"),
        ("name", words.harmless(said.name)),
        ("description", said.description and words.harmless(said.description)),
        ("project", one.project),
        ("version", f"{_version(one.version, one.latest_version)} ({one.version_id})"),
        ("model", said.model),
        ("sandbox", said.sandbox and f"{said.sandbox} ({said.sandbox_mode})"),
        ("tools", ", ".join(said.tools) or "the built-in ones"),
        (
            "permissions",
            ", ".join(f"{name}: {may}" for name, may in said.permissions.items()) or None,
        ),
        ("mcp servers", ", ".join(server.name for server in said.mcp_servers) or None),
        ("max_iterations", str(said.max_iterations)),
        *((name, None if value is None else str(value)) for name, value in sampling.items()),
        ("system_prompt", Text(words.harmless(said.system_prompt))),
    )


def tools(found: Sequence[Tool]) -> RenderableType:
    """Tools, a line each."""
    if not found:
        return Text("no custom tools; `define_tool` in tools/ and a deploy make one", style=_FAINT)
    made = table("TOOL", "PROJECT", "ACTIONS", "VERSION", "CODE", right=["VERSION"])
    for one in found:
        version = _version(one.version, one.latest_version)
        made.add_row(one.slug, one.project, ", ".join(one.actions), version, one.digest[:10])
    return made


def tool(one: Tool) -> RenderableType:
    """All about a tool."""
    return facts(
        ("tool", f"{one.slug} ({one.id})"),
        ("description", words.harmless(one.description) or None),
        ("project", one.project),
        ("version", f"{_version(one.version, one.latest_version)} ({one.version_id})"),
        ("actions", ", ".join(one.actions)),
        ("dependencies", words.harmless(", ".join(one.dependencies)) or "none"),
        ("code", one.digest),
        ("runs", "not yet: the platform has no tools service"),
    )


def versions(found: Sequence[Version]) -> RenderableType:
    """Versions, the newest first."""
    made = table("VERSION", "ID", "DEPLOY", "COMMIT", "BY", "WHEN", right=["VERSION"])
    for one in found:
        number = Text(f"{'→ ' if one.current else ''}{one.version}", "bold" if one.current else "")
        when = words.moment(one.created_at)
        made.add_row(number, one.id, one.deploy_id, commit(one.commit), one.actor, when)
    return made


def standing(found: Sequence[StandingSandbox]) -> RenderableType:
    """Standing sandboxes, a line each."""
    if not found:
        return Text("no standing sandboxes; `define_sandbox` and a deploy make one", style=_FAINT)
    made = table("SLUG", "PROJECT", "SANDBOX", "TEMPLATE", "VERSION", right=["VERSION"])
    for one in found:
        template = one.definition.template or "the default"
        version = _version(one.version, one.latest_version)
        made.add_row(one.slug, one.project, one.sandbox_id, template, version)
    return made


def _version(current: int, latest: int) -> str:
    return str(current) if current == latest else f"{current} of {latest}"
