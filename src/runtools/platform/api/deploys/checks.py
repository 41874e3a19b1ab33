"""What must hold of a project's definitions beside their shapes, before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from runtools.errors import Conflict, Forbidden, RunToolsError
from runtools.platform.api import guard
from runtools.platform.api.calls import Call
from runtools.platform.api.definitions.tables import Standing
from runtools.platform.api.deploys.boxes import name_of
from runtools.platform.api.deploys.plan import Step, Stood
from runtools.platform.api.models import service as models
from runtools.platform.api.sandboxes import births, rules, store
from runtools.platform.api.secrets import service as secrets
from runtools.platform.core.access import Caller
from runtools.platform.core.models import choose
from runtools.platform.core.sampling import clash
from runtools.platform.kit.http import wrong_field
from runtools.sdk.shapes.definitions import (
    BUILT_IN_TOOLS,
    MARKETPLACE_TOOLS,
    AgentDefinition,
    SandboxDefinition,
    amiss,
)
from runtools.sdk.shapes.deploys import PlanRequest

_REVEAL = "secret:reveal"
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)($|_)", re.IGNORECASE)


def check_plain(wanted: PlanRequest) -> PlanRequest:
    """What can be said without looking at anything that stands; returns it in its plain form.

    Raises:
        InvalidRequest: the field says which definition, and what of it.
    """
    rules.check_name(wanted.project, "project")
    for field in ("tools", "sandboxes", "agents"):
        seen: set[str] = set()
        for n, one in enumerate(getattr(wanted, field)):
            named = "name" if field == "tools" else "slug"
            rules.check_name(one.slug, f"{field}.{n}.{named}")
            if one.slug in seen:
                raise wrong_field(f"{field}.{n}.{named}", f"{one.slug!r} is defined twice")
            seen.add(one.slug)
    for n, tool in enumerate(wanted.tools):
        for where, said in amiss(tool):
            raise wrong_field(f"tools.{n}.{'.'.join(where)}", said)
    plain = [_plain(one, f"sandboxes.{n}.") for n, one in enumerate(wanted.sandboxes)]
    return wanted.model_copy(update={"sandboxes": plain})


def schemas(wanted: PlanRequest) -> dict[str, Any]:
    """What tools say of their actions' parameters, by the field that it stands in."""
    return {
        f"tools.{n}.actions.{name}.parameters": action.parameters
        for n, tool in enumerate(wanted.tools)
        for name, action in tool.actions.items()
    }


def _plain(box: SandboxDefinition, prefix: str) -> SandboxDefinition:
    rules.check_tags(box.tags, f"{prefix}tags")
    rules.check_env(box.env, f"{prefix}env")
    if both := sorted(set(box.secrets) & set(box.env)):
        raise wrong_field(f"{prefix}secrets", f"{', '.join(both)} is in env too")
    return box.model_copy(update={"egress": rules.egress(box.egress, f"{prefix}egress.")})


def check_whole(steps: Sequence[Step], standing: Iterable[Stood]) -> None:
    """What agents name is there once the deploy is done, and nothing goes that one of them needs.

    Raises:
        InvalidRequest: an agent names a sandbox or tool that is not there.
        Conflict: what would be deleted is named by an agent that stays.
    """
    there: set[tuple[str, str]] = {(one.kind, one.slug) for one in standing if not one.gone}
    going = {(one.change.kind, one.change.slug) for one in steps if one.change.action == "delete"}
    there |= {(one.change.kind, one.change.slug) for one in steps if one.wanted is not None}
    for step in steps:
        if isinstance(step.wanted, AgentDefinition):
            _check_agent(step.wanted, there)
    changed = {step.change.slug for step in steps if step.change.kind == "agent"}
    agents = [
        AgentDefinition.model_validate(one.says)
        for one in standing
        if one.kind == "agent" and one.slug not in changed
    ]
    agents += [step.wanted for step in steps if isinstance(step.wanted, AgentDefinition)]
    for agent in agents:
        if lost := sorted(slug for kind, slug in _named(agent) if (kind, slug) in going):
            raise Conflict(
                f"agent {agent.slug} names {', '.join(lost)}, which would be deleted",
                hint="deploy the agent without it first, or delete the agent too",
                details={"agent": agent.slug, "named": lost},
            )


def _named(agent: AgentDefinition) -> Iterator[tuple[str, str]]:
    if agent.sandbox is not None:
        yield "sandbox", agent.sandbox
    for tool in agent.tools:
        yield "tool", tool


def _lacking(agent: AgentDefinition, there: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    known = BUILT_IN_TOOLS | MARKETPLACE_TOOLS
    for kind, slug in _named(agent):
        if (kind, slug) not in there and not (kind == "tool" and slug in known):
            yield kind, slug


def _check_agent(agent: AgentDefinition, there: set[tuple[str, str]]) -> None:
    for kind, slug in _lacking(agent, there):
        field = "sandbox" if kind == "sandbox" else "tools"
        raise wrong_field(
            f"agents.{agent.slug}.{field}",
            f"there is no {kind} {slug!r} in the project",
            hint=f"define it, or deploy without --agents-only if it is defined: agent {agent.slug}",
        )


def check_secrets(who: Caller, steps: Sequence[Step]) -> None:
    """Who may see secrets alone has one sent to an address: whoever runs the server there reads it.

    What the agent's version in force sends to the same address already is no news.

    Raises:
        Forbidden: an agent to come has an MCP server with a secret, and the caller may not see secrets.
    """
    for step in steps:
        if isinstance(step.wanted, AgentDefinition):
            _check_sent(who, step.wanted, None if step.stood is None else step.stood.says)


def check_return(who: Caller, agent: AgentDefinition, standing: Iterable[Standing]) -> None:
    """An earlier version of an agent may come back: the same holds of it as of one that is deployed.

    Raises:
        Conflict: it names a sandbox or tool that is not there any more.
        Forbidden: as `check_secrets`.
    """
    mine = {(one.kind, one.slug): one for one in standing}
    check_there(agent, mine.values(), f"that version of agent {agent.slug}")
    now = mine.get(("agent", agent.slug))
    _check_sent(who, agent, None if now is None else now.says)


def check_there(agent: AgentDefinition, standing: Iterable[Standing], called: str) -> None:
    """What an agent names stands in the project.

    Raises:
        Conflict: something of it does not.
    """
    there: set[tuple[str, str]] = {
        (one.kind, one.slug) for one in standing if "stopped" not in (one.state, one.wanted)
    }
    if lost := sorted(f"{kind} {slug}" for kind, slug in _lacking(agent, there)):
        raise Conflict(
            f"{called} names {', '.join(lost)}, which the project does not have",
            hint="deploy what it names there first, or deploy the agent without it",
            details={"agent": agent.slug, "named": lost},
        )


def _check_sent(who: Caller, agent: AgentDefinition, says: Mapping[str, Any] | None) -> None:
    known = set() if says is None else _sent(AgentDefinition.model_validate(says))
    fresh = sorted(secret for _, secret in _sent(agent) - known)
    if not fresh:
        return
    try:
        guard.check_scope(who, _REVEAL)
    except Forbidden as error:
        error.message = (
            f"agent {agent.slug} has {', '.join(fresh)} sent to an MCP server, and whoever runs that"
            f" reads the value; {error.message}"
        )
        raise


def _sent(agent: AgentDefinition) -> set[tuple[str, str]]:
    return {
        (one.url, one.secret)
        for one in agent.mcp_servers
        if one.url is not None and one.secret is not None
    }


async def check_models(call: Call, steps: Sequence[Step]) -> None:
    """The models of the agents to come are known, and take what is said of their answers.

    Raises:
        InvalidRequest: one is not, the hint has what looks like it; or does not.
    """
    agents = [step.wanted for step in steps if isinstance(step.wanted, AgentDefinition)]
    endpoints = [one.slug for one in await models.all_of(call)] if agents else []
    for agent in agents:
        try:
            chosen = choose(agent.model, endpoints)
        except RunToolsError as error:
            field = f"agents.{agent.slug}.model"
            raise wrong_field(field, error.message, hint=error.hint) from None
        found = clash(chosen.provider, chosen.api_id, agent.model_dump(by_alias=False))
        if found is not None:
            named = AgentDefinition.model_fields[found.fields[0]].alias
            raise wrong_field(f"agents.{agent.slug}.{named}", found.why, hint=found.hint)


async def check_sandboxes(call: Call, project: str, steps: Sequence[Step]) -> None:
    """Whatever the sandboxes to come are made from is there, and their names are free.

    Raises:
        NotFound, Conflict, BuildFailed, Forbidden: a template or a secret is not, or not for them.
        NameTaken: another sandbox bears the name.
    """
    for step in steps:
        wanted = step.wanted
        if isinstance(wanted, SandboxDefinition) and step.change.action in ("create", "replace"):
            try:
                await _check_name(call, name_of(project, wanted.slug), step.stood)
                await births.version_of(call, wanted.template)
                env = await secrets.for_sandbox(call, wanted.secrets)
                rules.check_env(wanted.env | env)
            except RunToolsError as error:
                error.message = f"sandbox {wanted.slug}: {error.message}"
                error.details["definition"] = f"sandboxes.{wanted.slug}"
                raise


async def _check_name(call: Call, name: str, stood: Stood | None) -> None:
    bearer = await call.platform.db.read(store.by_name, call.org, name)
    mine = None if stood is None else stood.sandbox_id
    if bearer is not None and bearer.state != "stopped" and bearer.id != mine:
        raise store.name_taken(name)


def notes(steps: Sequence[Step], standing: Iterable[Stood]) -> list[str]:
    """What of the plan will not work yet, and why."""
    found = [
        f"tool {step.change.slug} is stored; calling it is refused (tools_unavailable) until the"
        " platform has its tools service"
        for step in steps
        if step.change.kind == "tool" and step.wanted is not None
    ]
    own = {one.slug for one in standing if one.kind == "tool"}
    own |= {step.change.slug for step in steps if step.change.kind == "tool"}
    for step in steps:
        if isinstance(step.wanted, SandboxDefinition):
            found += [
                f"sandbox {step.change.slug}: {name} in env looks like a secret; keep its value with"
                f" `runtools secret set` and name it in `secrets`"
                for name in sorted(step.wanted.env)
                if _SECRET.search(name)
            ]
        if isinstance(step.wanted, AgentDefinition):
            market = sorted(MARKETPLACE_TOOLS.intersection(step.wanted.tools) - own)
            if market:
                found.append(
                    f"agent {step.change.slug} names {', '.join(market)} of the marketplace, which"
                    " the platform does not have yet"
                )
    return found
