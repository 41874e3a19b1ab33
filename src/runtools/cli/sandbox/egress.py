"""``runtools sandbox egress``: what a sandbox may reach, and what it was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, output
from runtools.cli.output import Json
from runtools.cli.session import Ref, connected

if TYPE_CHECKING:
    from runtools.cli import egress_looks as looks
else:
    looks = lazy.module("runtools.cli.egress_looks")

_CHANGE = "Change"

ALLOW_HELP = "203.0.113.0/24, example.org, *.example.org or *; repeatable."
DENY_HELP = "Likewise; wins over --allow."


def egress(
    ref: Ref,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE", help=f"Reach only this: {ALLOW_HELP}", rich_help_panel=_CHANGE
        ),
    ] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="Never this; repeatable.", rich_help_panel=_CHANGE),
    ] = None,
    no_deny: Annotated[
        bool, typer.Option("--no-deny", help="Deny nothing.", rich_help_panel=_CHANGE)
    ] = False,
    internet: Annotated[
        bool | None,
        typer.Option(
            "--internet/--no-internet", help="Or nothing at all.", rich_help_panel=_CHANGE
        ),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Show the log of refusals alone.")] = False,
    json: Json = False,
) -> None:
    """Show what a sandbox may reach and what it was refused, or change it: at once, flows are cut.

    A list that is given takes the place of the one that was there.
    """
    denied = [] if no_deny and deny is None else deny
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
        if (internet, allow, denied) != (None, None, None):
            policy = sandbox.egress.change(internet=internet, allow=allow, deny=denied)
            output.show(policy, lambda: looks.egress(policy))
            return
        policy, refused = sandbox.egress.get(), sandbox.egress.log()
    shown = refused if log else policy
    output.show(shown, lambda: looks.egress(None if log else policy, refused))
