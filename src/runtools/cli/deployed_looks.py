"""How deployed agents, tools and standing sandboxes look to people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from runtools.cli import words
from runtools.cli.plan_looks import commit
from runtools.cli.tables import facts, table
from runtools.sdk.shapes.definitions import AgentDefinition, Credentials
from runtools.sdk.shapes.deploys import (
    Agent,
    AgentVersion,
    StandingSandbox,
    Tool,
    ToolVersion,
    Version,
)

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
    return facts(
        ("agent", f"{one.slug} ({one.id})"),
        ("project", one.project),
        ("version", f"{_version(one.version, one.latest_version)} ({one.version_id})"),
        *_agent(one.definition),
    )


def agent_version(one: AgentVersion) -> RenderableType:
    """What an agent was in a version, and where that came from."""
    return facts(*_origin(one), ("agent", one.definition.slug), *_agent(one.definition))


def _agent(said: AgentDefinition) -> Iterator[tuple[str, RenderableType | str | None]]:
    yield "name", words.harmless(said.name)
    yield "description", said.description and words.harmless(said.description)
    yield "model", said.model
    yield "sandbox", said.sandbox and f"{said.sandbox} ({said.sandbox_mode})"
    yield "tools", ", ".join(said.tools) or "the built-in ones"
    permissions = (f"{name}: {may}" for name, may in said.permissions.items())
    yield "permissions", ", ".join(permissions) or None
    yield "mcp servers", ", ".join(server.name for server in said.mcp_servers) or None
    for name in _CHOSEN:
        value = getattr(said, name)
        yield name, None if value is None else str(value)
    yield "system_prompt", Text(words.harmless(said.system_prompt))


_CHOSEN = (
    "max_iterations",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "thinking",
    "max_total_tokens",
    "max_cost_usd",
    "max_seconds",
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


def tool_version(one: ToolVersion) -> RenderableType:
    """What a tool was in a version, with its code, and where that came from."""
    said, source = one.definition, one.definition.source
    told = facts(
        *_origin(one),
        ("tool", said.name),
        ("description", words.harmless(said.description) or None),
        ("category", said.category and words.harmless(said.category)),
        ("credentials", _credentials(said.credentials)),
        *((name, words.harmless(action.description)) for name, action in said.actions.items()),
        ("dependencies", words.harmless(", ".join(source.dependencies)) or "none"),
        ("python", source.requires_python and words.harmless(source.requires_python)),
        ("entry", words.harmless_name(source.entry)),
        ("code", source.digest),
    )
    pieces: list[RenderableType] = [told]
    for place, text in source.files.items():
        pieces += [Text(f"\n{words.harmless_name(place)}", "bold"), Text(words.harmless(text))]
    return Group(*pieces)


def _credentials(needs: Credentials | None) -> str | None:
    if needs is None:
        return None
    named = [f"{name} (required)" for name in needs.required]
    named += [name for name in needs.fields if name not in needs.required]
    if needs.oauth is not None:
        named.append(f"from a connected account: {needs.oauth.provider}")
    return words.harmless(", ".join(named)) or None


def _origin(one: Version) -> Iterator[tuple[str, RenderableType | str | None]]:
    yield "version", f"{one.version} ({one.id})"
    yield "in force", "yes" if one.current else "no"
    yield "deploy", one.deploy_id
    yield "commit", commit(one.commit)
    yield "by", one.actor
    yield "made", words.moment(one.created_at)


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
