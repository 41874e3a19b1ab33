"""The room on the hosts, what takes their disk, and freeing it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, output, words
from runtools.cli.output import Json
from runtools.cli.session import connected, flag
from runtools.errors import InvalidRequest

if TYPE_CHECKING:
    from runtools.cli import figure_looks, host_looks
else:
    figure_looks = lazy.module("runtools.cli.figure_looks")
    host_looks = lazy.module("runtools.cli.host_looks")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="This machine")(hosts)
    app.command(rich_help_panel="This machine")(df)
    app.command(rich_help_panel="This machine")(prune)


def hosts(json: Json = False) -> None:
    """List the hosts: whether each is there, what it runs, and what is free."""
    with connected() as rt:
        found = rt.hosts.list()
    output.show(found, lambda: host_looks.hosts(found))


def df(json: Json = False) -> None:
    """Show what takes how much disk."""
    with connected() as rt:
        use = rt.disk()
    output.show(use, lambda: figure_looks.disk(use))


def prune(
    keep_ended: Annotated[
        bool, flag("--keep-ended", help="Leave the disks of ended sandboxes.")
    ] = False,
    keep_warm: Annotated[bool, flag("--keep-warm", help="Leave warm snapshots.")] = False,
    yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Free disk: kept disks of ended sandboxes (no `recover` after it), warm snapshots."""
    if not keep_ended and not yes:
        _ask()
    with connected() as rt, output.working("freeing disk"):
        pruned = rt.prune(ended=not keep_ended, warm=not keep_warm)
    output.show(
        pruned,
        lambda: (
            f"{words.size(pruned.freed_bytes)} freed: "
            f"{words.plural(pruned.ended_sandboxes, 'disk')} of ended sandboxes, "
            f"{words.plural(pruned.warm_snapshots, 'warm snapshot')}"
        ),
    )


def _ask() -> None:
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "prune ends the chance to recover ended sandboxes", hint="say --yes if that is meant"
        )
    if not typer.confirm("Ended sandboxes cannot be recovered after it. Go on?", err=True):
        raise typer.Exit(1)
