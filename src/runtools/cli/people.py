"""``runtools people …``: accounts, for the operator of the platform."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, output
from runtools.cli.output import Json
from runtools.cli.session import connected, flag

if TYPE_CHECKING:
    from runtools.cli import people_looks
else:
    people_looks = lazy.module("runtools.cli.people_looks")

app = typer.Typer(
    help="Everybody's accounts, as the operator: list, operator, reset, close.",
    no_args_is_help=True,
)

User = Annotated[str, typer.Argument(metavar="USER_ID", help="usr_…", show_default=False)]


class Switch(StrEnum):
    """Whether somebody is to have a right."""

    ON = "on"
    OFF = "off"


@app.command(name="list")
def list_(json: Json = False) -> None:
    """List who has an account, whatever organisations they are in."""
    with connected() as rt:
        found = rt.people.list()
    output.show(found, lambda: people_looks.accounts(found))


@app.command()
def operator(
    user: User,
    switch: Annotated[Switch, typer.Argument(help="on or off.", show_default=False)],
    revoke_keys: Annotated[
        bool, flag("--revoke-keys", help="With the right, end the API keys made by it, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Make somebody an operator of the whole platform, or take that right back."""
    with connected() as rt:
        account = rt.people.set_operator(
            user, operator=switch is Switch.ON, revoke_keys=revoke_keys
        )
    output.show(account, lambda: people_looks.accounts([account]))


@app.command()
def reset(user: User, json: Json = False) -> None:
    """Make a link by which somebody sets another password, once, within a day; prints it."""
    with connected() as rt:
        made = rt.people.reset(user)
    output.show(made, lambda: made.link)


@app.command()
def close(
    user: User,
    revoke_keys: Annotated[
        bool, flag("--revoke-keys", help="End the API keys that the person made, too.")
    ] = False,
) -> None:
    """Close somebody's account, for good, within a second."""
    with connected() as rt:
        rt.people.close(user, revoke_keys=revoke_keys)
