"""The commands, put together."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from runtools import __version__
from runtools.cli import (
    audit,
    auth,
    deploy,
    deployed,
    login,
    machine,
    mcp,
    member,
    models,
    org,
    output,
    people,
    project,
    runs,
    secret,
    space,
    ssh_key,
    template,
    usage,
    webhook,
)
from runtools.cli.sandbox import group as sandbox
from runtools.cli.sandbox import ssh
from runtools.errors import InvalidRequest, RunToolsError

app = typer.Typer(
    name="runtools",
    help="Real machines for AI agents: start, pause, fork and look into sandboxes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.line(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            metavar="",
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Real machines for AI agents: start, pause, fork and look into sandboxes."""


machine.register(app)
space.register(app)
app.add_typer(sandbox.app, name="sandbox", rich_help_panel="Sandboxes")
app.command("ssh-config", rich_help_panel="Sandboxes")(ssh.ssh_config)
app.add_typer(template.app, name="template", rich_help_panel="Sandboxes")
app.add_typer(webhook.app, name="webhook", rich_help_panel="Sandboxes")
deploy.register(app)
deployed.register(app)
runs.register(app, deployed.agents)
models.register(app)
mcp.register(app)
login.register(app)
app.add_typer(auth.app, name="auth", rich_help_panel="Organisation")
app.add_typer(member.app, name="member", rich_help_panel="Organisation")
app.add_typer(member.invite, name="invite", rich_help_panel="Organisation")
app.add_typer(org.app, name="org", rich_help_panel="Organisation")
app.add_typer(people.app, name="people", rich_help_panel="Organisation")
app.add_typer(project.app, name="project", rich_help_panel="Organisation")
app.add_typer(ssh_key.app, name="ssh-key", rich_help_panel="Organisation")
app.add_typer(secret.app, name="secret", rich_help_panel="Organisation")
usage.register(app)
audit.register(app)


def run() -> int:
    """Run the command that the process was started with."""
    try:
        app(prog_name="runtools")
    except RunToolsError as error:
        output.fail(error)
        return 1
    except BrokenPipeError:
        # The reader went away, as `head` does. Closing here keeps the interpreter from complaining.
        sys.stderr.close()
        return 128 + signal.SIGPIPE  # as a shell says of a program that ends so
    except OSError as error:
        if error.filename is None:
            raise
        output.fail(InvalidRequest(f"{error.filename}: {error.strerror}"))
        return 1
    return 0
