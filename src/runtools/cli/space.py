"""Disk: what takes it, and freeing it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from runtools.cli import output, words
from runtools.cli.output import Json, looks
from runtools.cli.session import connected
from runtools.errors import InvalidRequest


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Sandboxes")(df)
    app.command(rich_help_panel="Sandboxes")(prune)


def df(json: Json = False) -> None:
    """Show what takes how much disk."""
    with connected() as rt:
        use = rt.disk()
    output.show(use, lambda: looks.disk(use))


def prune(
    ended: Annotated[
        bool, typer.Option("--ended/--keep-ended", help="Disks of ended sandboxes.")
    ] = True,
    warm: Annotated[
        bool, typer.Option("--warm/--keep-warm", help="Warm snapshots; made again when needed.")
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Free disk: kept disks of ended sandboxes (no `recover` after it), warm snapshots."""
    if ended and not yes:
        _ask()
    with connected() as rt, output.working("freeing disk"):
        pruned = rt.prune(ended=ended, warm=warm)
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
