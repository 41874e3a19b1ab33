"""Commands that look at sandboxes and wake none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from runtools.cli import lazy, output, words
from runtools.cli.output import Json
from runtools.cli.sandbox import options, processes
from runtools.cli.session import Ref, connected, flag

if TYPE_CHECKING:
    from runtools.cli import deployed_looks, figure_looks, sandbox_looks, why_looks
else:
    figure_looks = lazy.module("runtools.cli.figure_looks")
    sandbox_looks = lazy.module("runtools.cli.sandbox_looks")
    why_looks = lazy.module("runtools.cli.why_looks")
    deployed_looks = lazy.module("runtools.cli.deployed_looks")

State = Literal["creating", "running", "paused", "stopped"]


def list_(
    state: Annotated[
        State | None, typer.Option(metavar="STATE", help="creating, running, paused or stopped.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only those with it; repeatable.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option("--template", "-t", metavar="SLUG", help="Only those made from it."),
    ] = None,
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Only those in it, by its id or name.")
    ] = None,
    everything: Annotated[bool, flag("--all", "-a", help="Stopped ones too.")] = False,
    quiet: Annotated[bool, flag("--quiet", "-q", help="Only their ids.")] = False,
    json: Json = False,
) -> None:
    """List sandboxes; stopped ones with --all or --state stopped."""
    tags = options.pairs("--tag", tag)
    with connected() as rt:
        states = get_args(State) if everything else state
        listed = rt.sandboxes.list(state=states, tags=tags, template=template, project_id=project)
        found = [sandbox.view for sandbox in listed]
    if quiet and not output.is_json():
        for view in found:
            output.line(view.id)
        return
    output.show(found, lambda: sandbox_looks.sandboxes(found))


def standing(
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Only those in it, by its id or name.")
    ] = None,
    json: Json = False,
) -> None:
    """List which sandboxes stand for the slugs of projects: those that a deploy made."""
    with connected() as rt:
        found = list(rt.standing_sandboxes.list(project_id=project))
    output.show(found, lambda: deployed_looks.standing(found))


def get(ref: Ref, json: Json = False) -> None:
    """Show all about a sandbox."""
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
    output.show(sandbox.view, lambda: sandbox_looks.sandbox(sandbox.view))


def stats(
    ref: Ref,
    history: Annotated[bool, flag("--history", help="The last hour instead of now.")] = False,
    json: Json = False,
) -> None:
    """Show its CPU, memory, disk and listening ports."""
    if history:
        with connected() as rt:
            hour = rt.sandboxes.get(ref).stats_history()
        output.show(hour, lambda: figure_looks.stats_history(hour))
        return
    with connected() as rt:
        measured = rt.sandboxes.get(ref).stats()
    output.show(measured, lambda: figure_looks.stats(measured))


def logs(
    ref: Ref,
    process: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROCESS]", help="Its output instead, byte for byte.", show_default=False
        ),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", help="How many of the console.")
    ] = 100,
    follow: Annotated[
        bool, flag("--follow", "-f", help="Of a process: until it has ended.")
    ] = False,
    offset: Annotated[
        int, typer.Option(metavar="BYTES", help="Of a process: from that byte on.", min=0)
    ] = 0,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which the offset is one of: ps --json says it. A rollback begins another.",
            show_default=False,
        ),
    ] = None,
    stream: Annotated[
        processes.Stream,
        typer.Option(metavar="STREAM", help="Of a process: output (both), stdout or stderr."),
    ] = "output",
    json: Json = False,
) -> None:
    """Show the last lines of the machine's console, also after its end; or what a process wrote."""
    if process is not None:
        if output.is_json():
            raise typer.BadParameter("the output of a process is bytes; there is no --json of it")
        place = processes.Place(offset, history)
        processes.show_output(ref, process, place, follow=follow, stream=stream)
        return
    if follow or offset or history is not None or stream != "output":
        raise typer.BadParameter("--follow, --offset, --history and --stream need a PROCESS")
    with connected() as rt:
        found = rt.sandboxes.get(ref).console(lines)
    output.show_lines([words.harmless(text) for text in found] if not output.is_json() else found)


def why(ref: Ref, json: Json = False) -> None:
    """Tell what happened to a sandbox, when, why and by whom: also after its end."""
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
        entries = sandbox.why()
    output.show(entries, lambda: why_looks.why(sandbox.view, entries))
