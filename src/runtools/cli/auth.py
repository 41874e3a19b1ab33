"""``runtools auth …``: who the key stands for, and the org's API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from runtools.cli import output
from runtools.cli.output import Json, looks
from runtools.cli.session import connected, flag

app = typer.Typer(help="Who you are to the platform, and API keys.", no_args_is_help=True)
keys = typer.Typer(help="API keys: make, list, rotate, revoke.", no_args_is_help=True)
app.add_typer(keys, name="keys")

KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="key_…", show_default=False)]


@app.command()
def status(json: Json = False) -> None:
    """Say which platform, org and key commands act with."""
    with connected() as rt:
        me, url = rt.me(), rt.url
    output.show(me, lambda: looks.me(me, url))


@keys.command(name="list")
def list_(
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Only those in it.")
    ] = None,
    json: Json = False,
) -> None:
    """List the org's keys, revoked ones too."""
    with connected() as rt:
        found = rt.api_keys.list(project_id=project)
    output.show(found, lambda: looks.api_keys(found))


@keys.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What it is for.", show_default=False)
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="NOUN:VERB", help="What it may do; repeatable; none: everything."),
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="30d|12w|1y", help="Default: never.")
    ] = None,
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Its project, by id or name.")
    ] = None,
    test: Annotated[bool, flag("--test", help="Mark it rt_test_ instead of rt_live_.")] = False,
    json: Json = False,
) -> None:
    """Make a key; prints it, this once."""
    with connected() as rt:
        made = rt.api_keys.create(
            name, scopes=scope or [], expires_in=expires_in, project_id=project, is_test=test
        )
    output.show(made, lambda: made.key or "")
    if not output.is_json():
        output.note(f"{made.id}; nobody can show it again")


@keys.command()
def rotate(key_id: KeyId, json: Json = False) -> None:
    """Replace a key by another with the same name and rights; prints it, this once."""
    with connected() as rt:
        made = rt.api_keys.rotate(key_id)
    output.show(made, lambda: made.key or "")
    if not output.is_json():
        output.note(f"{made.id} in the place of {key_id}, which ends within a second")


@keys.command()
def revoke(key_id: KeyId) -> None:
    """End a key; it stops working within a second."""
    with connected() as rt:
        rt.api_keys.revoke(key_id)
