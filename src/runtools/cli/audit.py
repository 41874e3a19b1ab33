"""``runtools audit``"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, output
from runtools.cli.output import Json
from runtools.cli.session import connected

if TYPE_CHECKING:
    from runtools.cli import key_looks as looks
else:
    looks = lazy.module("runtools.cli.key_looks")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Organisation")(audit)


def audit(
    action: Annotated[
        str | None, typer.Option(metavar="NOUN.VERB", help="For example secrets.reveal.")
    ] = None,
    resource: Annotated[str | None, typer.Option(metavar="ID", help="What it was done to.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="KEY_ID", help="An API key's id.")] = None,
    lines: Annotated[int, typer.Option(min=1, metavar="N", help="How many at most.")] = 50,
    json: Json = False,
) -> None:
    """Show who did what to which resource from where, the newest first."""
    with connected() as rt:
        found = list(islice(rt.audit.list(action=action, resource=resource, actor=actor), lines))
    output.show(found, lambda: looks.audit(found))
