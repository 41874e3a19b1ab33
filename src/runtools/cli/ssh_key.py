"""``runtools ssh-key …``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtools.cli import output, stdin
from runtools.cli.output import Json, org_looks
from runtools.cli.sandbox import options
from runtools.cli.session import connected

app = typer.Typer(help="Public keys that may log in to sandboxes.", no_args_is_help=True)


@app.command()
def add(
    label: Annotated[str, typer.Argument(metavar="LABEL", show_default=False)],
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="A .pub file; - reads stdin.")
    ],
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Its project, by id or name.")
    ] = None,
    json: Json = False,
) -> None:
    """Register a public key; prints its fingerprint."""
    if str(file) == "-":
        key = options.no_private_key(
            "stdin",
            stdin.text(),
            "give the public one, from the file that ends in .pub",
        )
    else:
        key = options.public_key(file)
    with connected() as rt:
        made = rt.ssh_keys.add(label, key, project_id=project)
    output.show(made, lambda: made.fingerprint)


@app.command("list")
def list_(
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Only those in it.")
    ] = None,
    json: Json = False,
) -> None:
    """List the org's SSH keys."""
    with connected() as rt:
        found = rt.ssh_keys.list(project_id=project)
    output.show(found, lambda: org_looks.ssh_keys(found))


@app.command()
def get(
    ref: Annotated[str, typer.Argument(metavar="KEY", help="Its id or label.", show_default=False)],
    json: Json = False,
) -> None:
    """Show a key, with its public part whole."""
    with connected() as rt:
        found = rt.ssh_keys.get(ref)
    output.show(found, lambda: org_looks.ssh_key(found))


@app.command()
def remove(
    ref: Annotated[str, typer.Argument(metavar="KEY", help="Its id or label.", show_default=False)],
) -> None:
    """Remove a key. Sandboxes that were given it keep it."""
    with connected() as rt:
        rt.ssh_keys.remove(ref)
