"""``runtools secret …``"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runtools.cli import lazy, machine, output, stdin
from runtools.cli.output import Json
from runtools.cli.session import connected, flag
from runtools.errors import InvalidRequest

if TYPE_CHECKING:
    from runtools.cli import key_looks as looks
else:
    looks = lazy.module("runtools.cli.key_looks")

Category = Literal["provider", "tool", "custom"]
Scope = Literal["all", "agents", "tools", "sandboxes"]

app = typer.Typer(
    help="Named values, sealed at rest: set, list, reveal, rotate.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
Value = Annotated[
    str | None,
    typer.Argument(
        metavar="[VALUE]",
        help="Better left out: other users see command lines. It is then read from stdin.",
        show_default=False,
    ),
]


@app.command(name="set")
def set_(
    name: Name,
    value: Value = None,
    category: Annotated[
        Category | None, typer.Option(help="Default: provider, or what it was.")
    ] = None,
    scope: Annotated[Scope | None, typer.Option(help="Default: all, or what it was.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT")] = None,
    json: Json = False,
) -> None:
    """Make a secret, or give the one of that name another value."""
    given = _value(value)
    with connected() as rt:
        secret = rt.secrets.set(
            name, given, category=category, scope=scope, description=description
        )
    output.show(secret, lambda: f"{secret.name} (version {secret.version})")


@app.command()
def rotate(name: Name, value: Value = None, json: Json = False) -> None:
    """Give a secret that exists another value."""
    given = _value(value)
    with connected() as rt:
        secret = rt.secrets.rotate(name, given)
    output.show(secret, lambda: f"{secret.name} (version {secret.version})")


@app.command(name="list")
def list_(
    category: Annotated[Category | None, typer.Option(help="Only these.")] = None,
    json: Json = False,
) -> None:
    """List the org's secrets, without their values."""
    with connected() as rt:
        found = list(rt.secrets.list(category=category))
    output.show(found, lambda: looks.secrets(found))


@app.command()
def get(
    name: Name,
    reveal: Annotated[
        bool, flag("--reveal", help="Print the value alone. The audit log says so.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what is known of a secret; its value only with --reveal."""
    if not reveal:
        with connected() as rt:
            secret = rt.secrets.get(name)
        output.show(secret, lambda: looks.secrets([secret]))
        return
    with connected() as rt:
        revealed = rt.secrets.reveal(name)
    if output.is_json():
        output.item(revealed)
    else:
        output.line(revealed.value)


@app.command()
def delete(
    name: Name,
    force: Annotated[bool, flag("--force", "-f", help="Do not ask.")] = False,
) -> None:
    """Delete a secret."""
    if not force:
        _ask(name)
    with connected() as rt:
        rt.secrets.delete(name)


@app.command()
def rekey() -> None:
    """Change over to another master key, and seal everything with it. Needs root on the machine."""
    machine.become("rekey", root=True)


def _value(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    if sys.stdin.isatty():
        return str(typer.prompt("Value", hide_input=True, err=True))
    value = re.sub(r"\r?\n\Z", "", stdin.text())
    if not value:
        raise InvalidRequest(
            "stdin held no value", hint="printf %s VALUE | runtools secret set NAME"
        )
    return value


def _ask(name: str) -> None:
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{name} would be lost", hint="say --force if that is meant")
    if not typer.confirm(f"Delete {name}? Nobody can bring it back.", err=True):
        raise typer.Exit(1)
