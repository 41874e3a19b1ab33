"""``runtools project …``"""

from __future__ import annotations

from typing import Annotated

import typer

from runtools.cli import output
from runtools.cli.output import Json, org_looks
from runtools.cli.session import connected

app = typer.Typer(
    help="Groups of sandboxes and keys; they allow and forbid nothing.", no_args_is_help=True
)

Ref = Annotated[str, typer.Argument(metavar="PROJECT", help="Its id or name.", show_default=False)]
Color = Annotated[str | None, typer.Option(metavar="#RRGGBB", help="For those who draw it.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """List the org's projects, the default one first."""
    with connected() as rt:
        found = rt.projects.list()
    output.show(found, lambda: org_looks.projects(found))


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    color: Color = None,
    json: Json = False,
) -> None:
    """Make a project; prints its id."""
    with connected() as rt:
        made = rt.projects.create(name, color=color)
    output.show(made, lambda: made.id)


@app.command()
def get(ref: Ref, json: Json = False) -> None:
    """Show a project and how much lies in it."""
    with connected() as rt:
        found = rt.projects.get(ref)
    output.show(found, lambda: org_looks.projects([found]))


@app.command()
def rename(
    ref: Ref,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Its new name.", show_default=False)
    ] = None,
    color: Color = None,
    json: Json = False,
) -> None:
    """Give a project another name, colour or both."""
    if name is None and color is None:
        raise typer.BadParameter("say a new NAME, a --color or both")
    with connected() as rt:
        changed = rt.projects.change(ref, name=name, color=color)
    output.show(changed, lambda: org_looks.projects([changed]))


@app.command()
def delete(
    ref: Ref,
    move_to: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Where what is in it goes.")
    ] = None,
) -> None:
    """Delete a project that is empty, or whose things go to another."""
    with connected() as rt:
        rt.projects.delete(ref, move_to=move_to)


@app.command()
def move(
    ref: Ref,
    sandbox: Annotated[
        list[str] | None, typer.Option(metavar="SANDBOX", help="Id or name; repeatable.")
    ] = None,
    agent: Annotated[
        list[str] | None, typer.Option(metavar="AGENT", help="Id or slug; repeatable.")
    ] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY_ID", help="An API key; repeatable.")
    ] = None,
    ssh_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="An SSH key; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Put things into a project: all that are named, or none."""
    with connected() as rt:
        filled = rt.projects.move(
            ref,
            sandboxes=sandbox or [],
            agents=agent or [],
            api_keys=api_key or [],
            ssh_keys=ssh_key or [],
        )
    output.show(filled, lambda: org_looks.projects([filled]))
