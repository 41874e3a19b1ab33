"""``runtools init`` and ``runtools deploy``."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtools.cli import lazy, output
from runtools.cli.output import Json
from runtools.cli.session import connected, flag
from runtools.errors import Forbidden, InvalidRequest, RunToolsError, from_wire

if TYPE_CHECKING:
    from runtools import RunTools
    from runtools.cli import history, plan_looks
    from runtools.project import folder, loading, places, scaffold
    from runtools.project.folder import Folder
    from runtools.sdk.shapes.deploys import Deploy, Plan
else:
    history = lazy.module("runtools.cli.history")
    plan_looks = lazy.module("runtools.cli.plan_looks")
    folder = lazy.module("runtools.project.folder")
    loading = lazy.module("runtools.project.loading")
    places = lazy.module("runtools.project.places")
    scaffold = lazy.module("runtools.project.scaffold")

_PANEL = "Project"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=_PANEL)(init)
    app.command(rich_help_panel=_PANEL)(deploy)


def init(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Default: the current folder.", show_default=False),
    ] = None,
) -> None:
    """Make a project that deploys as it stands: an agent, a tool and a sandbox, a file each."""
    root = Path.cwd() if directory is None else directory
    for file in scaffold.scaffold(root):
        output.line(str(file if directory is None else root / file.relative_to(root.resolve())))
    where = "" if directory is None else f"cd {root} && "
    output.note(f"next: {where}runtools deploy")


def deploy(
    dry_run: Annotated[bool, flag("--dry-run", help="Show the plan, change nothing.")] = False,
    tools_only: Annotated[bool, flag("--tools-only", help="Look at tools alone.")] = False,
    agents_only: Annotated[bool, flag("--agents-only", help="Look at agents alone.")] = False,
    sandboxes_only: Annotated[
        bool, flag("--sandboxes-only", help="Look at sandboxes alone.")
    ] = False,
    prune: Annotated[
        bool, flag("--prune", help="Delete what stands in the project and is defined no more.")
    ] = False,
    yes: Annotated[
        bool,
        flag("--yes", "-y", help="Ask nothing, not even about data that a sandbox would lose."),
    ] = False,
    json: Json = False,
) -> None:
    """Bring what stands in the project to what its files say: tools, sandboxes, agents."""
    wanted = {"tool": tools_only, "sandbox": sandboxes_only, "agent": agents_only}
    only: list[Any] = [kind for kind, chosen in wanted.items() if chosen]
    found = folder.find(Path.cwd())
    name = found.settings.project
    if name is None:
        raise InvalidRequest(
            f"{found.root / folder.CONFIG} names no project",
            hint='set project = "…" in [tool.runtools]',
        )
    with output.working("loading the project"):
        loaded = loading.load(found)
    definitions = [one.definition for one in loaded]
    if not definitions:
        output.note(f"{found.root} defines nothing")
    with connected() as rt:
        _check_org(rt, found)
        try:
            plan = rt.deploys.plan(name, definitions, only=only, prune=prune)
        except RunToolsError as error:
            places.place(error, found.root, loaded)
            raise
        if not output.is_json():
            output.screen.draw(plan_looks.plan(plan))
        if dry_run or not plan.changes:
            _report(plan, None)
            return
        losing = _confirmed(plan, yes=yes)
        begun = rt.deploys.create(
            plan,
            definitions,
            only=only,
            prune=prune,
            losing=losing,
            commit=history.commit(found.root),
        )
        ended = _follow(rt, begun)
    _report(plan, ended)
    if ended.error is not None:
        if ended.error.output and not output.is_json():
            output.note(plan_looks.output(ended.error.output))
        raise from_wire(
            {**ended.error.model_dump(by_alias=True), "details": {"deployId": ended.id}}
        )


def _check_org(rt: RunTools, found: Folder) -> None:
    """A project that says whose it is does not end up elsewhere."""
    wanted = found.settings.org
    if wanted is None:
        return
    me = rt.me()
    if wanted not in (me.org_name, me.org_id):
        raise Forbidden(
            f"the project belongs to org {wanted!r}, and you act in {me.org_name!r}",
            hint=f"act in {wanted} (a key of it, or runtools auth switch), or change org in"
            f" {found.root / folder.CONFIG}",
        )


def _confirmed(plan: Plan, *, yes: bool) -> list[str]:
    """Have the plan confirmed, and every loss of data by itself; returns who loses theirs."""
    losing = [change.slug for change in plan.changes if change.loses_data]
    if yes:
        return losing
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "nobody is there to confirm the plan; nothing was done",
            hint="--yes carries it out unasked, --dry-run only shows it",
        )
    if not typer.confirm("Carry it out?", err=True):
        raise typer.Exit(1)
    for slug in losing:
        text = f"All data in sandbox {slug} will be lost. Type its name to go on"
        if typer.prompt(text, err=True, default="", show_default=False).strip() != slug:
            output.note("nothing was done")
            raise typer.Exit(1)
    return losing


def _follow(rt: RunTools, begun: Deploy) -> Deploy:
    """Say what is done as it is; returns how it ended."""
    shown, latest = 0, begun
    try:
        with output.working(plan_looks.next_of(begun)) as say:
            for latest in rt.deploys.follow(begun.id):
                for change in latest.changes[shown : latest.done]:
                    if not output.is_json():
                        output.screen.draw(plan_looks.done(change))
                shown = latest.done
                say(plan_looks.next_of(latest))
    except KeyboardInterrupt:
        output.note(f"\n{begun.id} goes on by itself: runtools deploys show {begun.id}, or cancel")
        raise typer.Exit(130) from None
    return latest


def _report(plan: Plan, ended: Deploy | None) -> None:
    if output.is_json():
        told = plan.model_dump(mode="json", exclude={"digest"})
        told["deploy"] = None if ended is None else ended.model_dump(mode="json")
        output.line(json_.dumps(told))
    elif ended is not None:
        output.screen.draw(plan_looks.ended(ended))
