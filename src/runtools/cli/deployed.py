"""``runtools agent …``, ``runtools tool …`` and ``runtools deploys …``: what is deployed."""

from __future__ import annotations

import json as json_
import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import here, lazy, objects, output, stdin
from runtools.cli.output import Json
from runtools.cli.session import connected, flag
from runtools.errors import InvalidRequest

if TYPE_CHECKING:
    from runtools.cli import deployed_looks as looks
    from runtools.cli import plan_looks
else:
    looks = lazy.module("runtools.cli.deployed_looks")
    plan_looks = lazy.module("runtools.cli.plan_looks")

agents = typer.Typer(help="Deployed agents and their versions.", no_args_is_help=True)
tools = typer.Typer(help="Deployed custom tools and their versions.", no_args_is_help=True)
deploys = typer.Typer(help="Who deployed what, and what became of it.", no_args_is_help=True)

AgentRef = Annotated[
    str, typer.Argument(metavar="AGENT", help="Its slug or id.", show_default=False)
]
ToolRef = Annotated[str, typer.Argument(metavar="TOOL", help="Its name or id.", show_default=False)]
Project = Annotated[
    str | None,
    typer.Option(metavar="PROJECT", help="By id or name; slugs are a project's own."),
]
VersionRef = Annotated[
    str, typer.Argument(metavar="VERSION", help="Its number or id.", show_default=False)
]
Force = Annotated[bool, flag("--force", "-f", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the groups."""
    app.add_typer(agents, name="agent", rich_help_panel="Agents")
    app.add_typer(tools, name="tool", rich_help_panel="Agents")
    app.add_typer(deploys, name="deploys", rich_help_panel="Project")


@agents.command("list")
def list_agents(project: Project = None, json: Json = False) -> None:
    """List the agents."""
    with connected() as rt:
        found = list(rt.agents.list(project_id=project))
    output.show(found, lambda: looks.agents(found))


@agents.command("get")
def get_agent(ref: AgentRef, project: here.InProject = None, json: Json = False) -> None:
    """Show an agent as it is in force."""
    with connected() as rt, here.project(project, ref) as sought:
        found = rt.agents.get(ref, project_id=sought)
    output.show(found, lambda: looks.agent(found))


@agents.command("delete")
def delete_agent(ref: AgentRef, project: here.InProject = None, force: Force = False) -> None:
    """Delete an agent; a deploy of files that define it makes it again."""
    _ask("agent", ref, force=force)
    with connected() as rt, here.project(project, ref) as sought:
        rt.agents.delete(ref, project_id=sought)


@agents.command("versions")
def agent_versions(ref: AgentRef, project: here.InProject = None, json: Json = False) -> None:
    """List its versions: who deployed each, from which commit."""
    with connected() as rt, here.project(project, ref) as sought:
        found = list(rt.agents.versions(ref, project_id=sought))
    output.show(found, lambda: looks.versions(found))


@agents.command("version")
def agent_version(
    ref: AgentRef, version: VersionRef, project: here.InProject = None, json: Json = False
) -> None:
    """Show one of its versions: what it says, and where it came from. It never changes."""
    with connected() as rt, here.project(project, ref) as sought:
        found = rt.agents.version(ref, version, project_id=sought)
    output.show(found, lambda: looks.agent_version(found))


@agents.command("rollback")
def roll_back(
    ref: AgentRef,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="VERSION", help="Default: the one before.", min=1),
    ] = None,
    project: here.InProject = None,
    json: Json = False,
) -> None:
    """Put another version in force. The files are as they were: the next deploy goes by them."""
    with connected() as rt, here.project(project, ref) as sought:
        found = rt.agents.rollback(ref, to, project_id=sought)
    output.show(found, lambda: f"{found.slug} is at version {found.version}")


@tools.command("list")
def list_tools(project: Project = None, json: Json = False) -> None:
    """List the custom tools."""
    with connected() as rt:
        found = list(rt.tools.list(project_id=project))
    output.show(found, lambda: looks.tools(found))


@tools.command("get")
def get_tool(ref: ToolRef, project: here.InProject = None, json: Json = False) -> None:
    """Show a tool."""
    with connected() as rt, here.project(project, ref) as sought:
        found = rt.tools.get(ref, project_id=sought)
    output.show(found, lambda: looks.tool(found))


@tools.command("delete")
def delete_tool(ref: ToolRef, project: here.InProject = None, force: Force = False) -> None:
    """Delete a tool that no agent names."""
    _ask("tool", ref, force=force)
    with connected() as rt, here.project(project, ref) as sought:
        rt.tools.delete(ref, project_id=sought)


@tools.command("versions")
def tool_versions(ref: ToolRef, project: here.InProject = None, json: Json = False) -> None:
    """List its versions: who deployed each, from which commit."""
    with connected() as rt, here.project(project, ref) as sought:
        found = list(rt.tools.versions(ref, project_id=sought))
    output.show(found, lambda: looks.versions(found))


@tools.command("version")
def tool_version(
    ref: ToolRef, version: VersionRef, project: here.InProject = None, json: Json = False
) -> None:
    """Show one of its versions with its code. It never changes."""
    with connected() as rt, here.project(project, ref) as sought:
        found = rt.tools.version(ref, version, project_id=sought)
    output.show(found, lambda: looks.tool_version(found))


@tools.command("execute")
def execute(
    ref: ToolRef,
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="One of its actions.", show_default=False)
    ],
    params: Annotated[
        str, typer.Option(metavar="JSON", help="An object; - reads it from stdin.")
    ] = "{}",
    project: here.InProject = None,
    json: Json = False,
) -> None:
    """Call an action; prints what it returns as JSON. Refused until there is a tools service."""
    is_piped = params == "-"
    given = objects.parsed(
        stdin.text() if is_piped else params, "stdin" if is_piped else "--params"
    )
    with connected() as rt, here.project(project, ref) as sought:
        result = rt.tools.execute(ref, action, given, project_id=sought)
    output.line(json_.dumps(result))


@deploys.command("list")
def list_deploys(
    project: Project = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    json: Json = False,
) -> None:
    """List deploys, the latest first."""
    with connected() as rt:
        found = list(islice(rt.deploys.list(project_id=project), limit))
    output.show(found, lambda: plan_looks.deploys(found))


@deploys.command("cancel")
def cancel_deploy(
    deploy: Annotated[str, typer.Argument(metavar="DEPLOY", help="Its id.", show_default=False)],
    json: Json = False,
) -> None:
    """End a deploy before its next change, or in the middle of a setup; what is done stays done."""
    with connected() as rt:
        found = rt.deploys.cancel(deploy)
        with output.working("waiting until it has ended"):
            for found in rt.deploys.follow(deploy):  # noqa: B007 - the last one is shown
                pass
    output.show(found, lambda: plan_looks.deploy(found))


@deploys.command("show")
def show_deploy(
    deploy: Annotated[str, typer.Argument(metavar="DEPLOY", help="Its id.", show_default=False)],
    json: Json = False,
) -> None:
    """Show a deploy: what it changed, how far it came, what it failed at."""
    with connected() as rt:
        found = rt.deploys.get(deploy)
    output.show(found, lambda: plan_looks.deploy(found))


def _ask(kind: str, ref: str, *, force: bool) -> None:
    if force:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{kind} {ref} would go", hint="say --force if that is meant")
    if not typer.confirm(f"Delete {kind} {ref}?", err=True):
        raise typer.Exit(1)
