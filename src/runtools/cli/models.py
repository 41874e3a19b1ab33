"""``runtools models``: the catalogue; ``runtools endpoint …``: servers of the org's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, output
from runtools.cli.output import Json
from runtools.cli.session import connected, flag

if TYPE_CHECKING:
    from runtools.cli import model_looks as looks
else:
    looks = lazy.module("runtools.cli.model_looks")

endpoints = typer.Typer(
    help="OpenAI-compatible servers of your own: Ollama, vLLM, a gateway.", no_args_is_help=True
)

Slug = Annotated[str, typer.Argument(metavar="SLUG", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command and the group."""
    app.command(name="models", rich_help_panel="Agents")(models)
    app.add_typer(endpoints, name="endpoint", rich_help_panel="Agents")


def models(
    usable: Annotated[bool, flag("--usable", help="Only those that have a key.")] = False,
    json: Json = False,
) -> None:
    """List the models that agents can think with, and which of them have a key."""
    with connected() as rt:
        found = [model for model in rt.models.list() if not usable or model.key != "missing"]
    output.show(found, lambda: looks.models(found))


@endpoints.command()
def create(
    slug: Slug,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The base, up to /v1.", show_default=False)
    ],
    secret: Annotated[
        str | None, typer.Option(metavar="NAME", help="The secret that holds its key.")
    ] = None,
    context_window: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="What its models take in; runs keep below it."),
    ] = None,
    json: Json = False,
) -> None:
    """Add a server. Agents name its models SLUG:MODEL."""
    with connected() as rt:
        made = rt.models.endpoints.create(slug, url, secret=secret, context_window=context_window)
    output.show(made, lambda: looks.endpoints([made]))


@endpoints.command("list")
def list_(json: Json = False) -> None:
    """List them."""
    with connected() as rt:
        found = rt.models.endpoints.list()
    output.show(found, lambda: looks.endpoints(found))


@endpoints.command("models")
def ask(slug: Slug, json: Json = False) -> None:
    """Ask one which models it has."""
    with connected() as rt:
        found = rt.models.endpoints.models(slug)
    output.show(found, lambda: looks.names(found))


@endpoints.command()
def delete(slug: Slug, json: Json = False) -> None:
    """Take one away."""
    with connected() as rt:
        rt.models.endpoints.delete(slug)
    output.show(None, lambda: f"{slug} is deleted")
