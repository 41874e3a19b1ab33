"""``runtools org …``"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from runtools.cli import output
from runtools.cli.output import Json, org_looks
from runtools.cli.session import connected

app = typer.Typer(help="Organisations: list, create, rename, leave, limits.", no_args_is_help=True)

_DEFAULT = "default"

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


def _option(what: str) -> Any:
    return typer.Option(metavar="N", help=f"Set how many {what}; 0: no limit, default: as usual.")


@app.command()
def limits(
    org: Annotated[
        str | None, typer.Option(metavar="ORG_ID", help="Of another org, as the operator.")
    ] = None,
    sandboxes: Annotated[str | None, _option("may run at once")] = None,
    vcpus: Annotated[str | None, _option("vCPUs those may have")] = None,
    memory_mb: Annotated[str | None, _option("MB of memory those may have")] = None,
    disk_mb: Annotated[str | None, _option("MB of disk all may have")] = None,
    snapshots: Annotated[str | None, _option("may be kept")] = None,
    agent_tokens: Annotated[
        str | None, _option("tokens of models runs may take in a month")
    ] = None,
    agent_cents: Annotated[str | None, _option("US cents those may cost")] = None,
    json: Json = False,
) -> None:
    """Show what the org may have at once, and what it has; or set it, as the operator."""
    given = {
        "sandboxes": sandboxes,
        "vcpus": vcpus,
        "memory_mb": memory_mb,
        "disk_mb": disk_mb,
        "snapshots": snapshots,
        "agent_tokens": agent_tokens,
        "agent_cents": agent_cents,
    }
    said = {name: _amount(name, text) for name, text in given.items() if text is not None}
    with connected() as rt:
        whose = org or rt.limits.get().org_id
        found = rt.limits.set(whose, **said) if said else rt.limits.get(org)
    output.show(found, lambda: org_looks.limits(found))


@app.command(name="list")
def list_(json: Json = False) -> None:
    """List the organisations that you are in."""
    with connected() as rt:
        found = rt.orgs.list()
    output.show(found, lambda: org_looks.orgs(found))


@app.command()
def create(
    name: Name,
    admin: Annotated[
        str | None,
        typer.Option(metavar="EMAIL", help="Who is invited as its first Admin. Default: you."),
    ] = None,
    json: Json = False,
) -> None:
    """Make an organisation, as the operator; prints the link of its first Admin, this once."""
    with connected() as rt:
        made = rt.orgs.create(name, admin_email=admin)
    if made.invitation is None:
        output.show(made, lambda: made.id)
    else:
        hint = f"nobody can enter it: make another, runtools org create NAME --admin {admin}"
        link = made.invitation.link
        output.show_once(made, made.id, "link of its first Admin", link, hint)
    if not output.is_json():
        output.note(f"{made.id}; act in it: runtools auth switch {made.id}")


@app.command()
def rename(name: Name, json: Json = False) -> None:
    """Give the current organisation another name."""
    with connected() as rt:
        org = rt.orgs.rename(name)
    output.show(org, lambda: org_looks.orgs([org]))


@app.command(name="dev-urls")
def dev_urls(
    access: Annotated[
        Literal["public", "private"] | None, typer.Argument(show_default=False)
    ] = None,
) -> None:
    """Show or choose, as an Admin, who may enter ports for which nothing nearer was chosen."""
    with connected() as rt:
        if access is not None:
            rt.orgs.choose_dev_urls(access)
        found = rt.orgs.dev_urls()
    output.line(found)


@app.command()
def leave() -> None:
    """Leave the current organisation."""
    with connected() as rt:
        rt.orgs.leave()


def _amount(name: str, text: str) -> Any:
    if text == _DEFAULT:
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise typer.BadParameter(f"--{name.replace('_', '-')} takes a number, or {_DEFAULT}")
    return int(text)
