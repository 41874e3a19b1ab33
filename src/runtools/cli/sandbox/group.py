"""``runtools sandbox``: its commands, put together."""

from __future__ import annotations

import typer

from runtools.cli.sandbox import (
    copying,
    create,
    desktop,
    egress,
    inside,
    life,
    look,
    processes,
    shell,
    ssh,
    urls,
    watching,
)

app = typer.Typer(
    help="Machines: create them, run in them, pause, fork and end them.", no_args_is_help=True
)

_BEGIN, _INSIDE, _STATE, _LOOK = "Begin and end", "Inside", "State", "Look"

app.command(rich_help_panel=_BEGIN)(create.create)
app.command(rich_help_panel=_BEGIN)(life.destroy)
app.command(rich_help_panel=_BEGIN)(life.recover)
app.command("exec", rich_help_panel=_INSIDE)(inside.exec_)
app.command(rich_help_panel=_INSIDE)(shell.shell)
app.command(rich_help_panel=_INSIDE)(ssh.ssh)
app.command(rich_help_panel=_INSIDE)(processes.ps)
app.command(rich_help_panel=_INSIDE)(processes.kill)
app.command(rich_help_panel=_INSIDE)(copying.cp)
app.command(rich_help_panel=_INSIDE)(watching.watch)
app.command(rich_help_panel=_INSIDE)(urls.url)
app.command(rich_help_panel=_INSIDE)(desktop.desktop)
app.command(rich_help_panel=_INSIDE)(desktop.screenshot)
app.command(rich_help_panel=_STATE)(life.pause)
app.command(rich_help_panel=_STATE)(life.resume)
app.command(rich_help_panel=_STATE)(life.fork)
app.command(rich_help_panel=_STATE)(life.snapshot)
app.command(rich_help_panel=_STATE)(life.snapshots)
app.command(rich_help_panel=_STATE)(life.rollback)
app.command(rich_help_panel=_STATE)(egress.egress)
app.command("list", rich_help_panel=_LOOK)(look.list_)
app.command(rich_help_panel=_LOOK)(look.standing)
app.command(rich_help_panel=_LOOK)(look.get)
app.command(rich_help_panel=_LOOK)(look.stats)
app.command(rich_help_panel=_LOOK)(look.logs)
app.command(rich_help_panel=_LOOK)(look.why)
