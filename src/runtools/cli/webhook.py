"""``runtools webhook …``"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtools.cli import lazy, output
from runtools.cli.output import Json
from runtools.cli.session import connected

if TYPE_CHECKING:
    from runtools.cli import webhook_looks as looks
else:
    looks = lazy.module("runtools.cli.webhook_looks")

app = typer.Typer(help="Receivers that are told what happens to sandboxes.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id.", show_default=False)]


@app.command()
def create(
    url: Annotated[str, typer.Argument(metavar="URL", show_default=False)],
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="Only such, e.g. sandbox.stopped; repeatable."),
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="For people.")] = "",
    json: Json = False,
) -> None:
    """Have events sent to a URL; prints the secret, which is shown this once."""
    wanted: Any = event or []
    with connected() as rt:
        made = rt.webhooks.create(url, events=wanted, description=description)
    hint = f"delete it and make another: runtools webhook delete {made.id}"
    output.show_once(made, made.id, "secret", made.secret, hint, lambda: looks.webhook(made))


@app.command("list")
def list_(json: Json = False) -> None:
    """List the webhooks."""
    with connected() as rt:
        found = rt.webhooks.list()
    output.show(found, lambda: looks.webhooks(found))


@app.command()
def get(webhook: Id, json: Json = False) -> None:
    """Show one; a disabled one says why."""
    with connected() as rt:
        found = rt.webhooks.get(webhook)
    output.show(found, lambda: looks.webhook(found))


@app.command()
def enable(webhook: Id, json: Json = False) -> None:
    """Send to one that was disabled again."""
    with connected() as rt:
        found = rt.webhooks.enable(webhook)
    output.show(found, lambda: looks.webhook(found))


@app.command()
def delete(webhook: Id, json: Json = False) -> None:
    """Delete one, with its deliveries."""
    with connected() as rt:
        rt.webhooks.delete(webhook)
    output.show(None, lambda: f"{webhook} is deleted")


@app.command("test")
def try_(webhook: Id, json: Json = False) -> None:
    """Send a test event now; fails when it was not taken."""
    with connected() as rt:
        sent = rt.webhooks.test(webhook)
    output.show(sent, lambda: looks.deliveries([sent]))
    if sent.state != "delivered":
        raise typer.Exit(1)


@app.command()
def deliveries(
    webhook: Id,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", help="How many.")] = 20,
    json: Json = False,
) -> None:
    """List what was sent, newest first."""
    with connected() as rt:
        found = list(islice(rt.webhooks.deliveries(webhook), max(lines, 0)))
    output.show(found, lambda: looks.deliveries(found))


@app.command()
def redeliver(
    webhook: Id,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", show_default=False)],
    json: Json = False,
) -> None:
    """Send the event of a delivery once more."""
    with connected() as rt:
        again = rt.webhooks.redeliver(webhook, delivery)
    output.show(again, lambda: looks.deliveries([again]))
