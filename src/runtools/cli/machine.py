"""Commands on the machine itself: they start ``python -m runtools.platform`` in their place.

The process of the command becomes that process: its input, output, signals and exit code are the
platform's own. What needs root and has not got it goes through sudo, which lets the platform's own
settings through and nothing else.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from runtools.cli import output
from runtools.cli.session import flag
from runtools.errors import Forbidden, RunToolsError
from runtools.sdk.settings import platform_environment

_PANEL = "This machine"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=_PANEL)(setup)
    app.command(rich_help_panel=_PANEL)(up)
    app.command(rich_help_panel=_PANEL)(down)
    app.command(rich_help_panel=_PANEL)(status)
    app.command(rich_help_panel=_PANEL)(doctor)
    app.command(rich_help_panel=_PANEL)(strays)


def setup() -> None:
    """Install what sandboxes need from this system (QEMU and a few tools). Needs root."""
    become("setup", root=True)


def up(
    detach: Annotated[bool, flag("--detach", "-d", help="Return when it answers.")] = False,
    tls_cert: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Serve dev URLs with this certificate chain (PEM)."),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its key, if it is in another file.")
    ] = None,
) -> None:
    """Start the platform and keep it running. Needs root, for its host process alone."""
    words = ["--detach"] if detach else []
    words += ["--tls-cert", tls_cert] if tls_cert is not None else []
    words += ["--tls-key", tls_key] if tls_key is not None else []
    become("up", *words, root=True)


def down() -> None:
    """Pause what runs and stop the platform. Needs root."""
    become("down", root=True)


def status() -> None:
    """Say whether the platform answers: exit code 0 only if it does."""
    become("status", root=False)


def doctor() -> None:
    """Check this machine, and say what to do about each finding."""
    become("doctor", root=False)


class StrayAct(StrEnum):
    """What can be done about strays."""

    LIST = "list"
    ADOPT = "adopt"
    DESTROY = "destroy"


def strays(
    act: Annotated[StrayAct, typer.Argument(help="list, adopt or destroy.")] = StrayAct.LIST,
    sandbox: Annotated[
        str | None, typer.Argument(metavar="ID", help="Its id.", show_default=False)
    ] = None,
    org: Annotated[
        str | None, typer.Option(metavar="ORG", help="Whose it becomes; default: the first org's.")
    ] = None,
) -> None:
    """Sandboxes that no record bears, as after an older backup was restored. Needs root."""
    words = [act.value, *([sandbox] if sandbox else []), *(["--org", org] if org else [])]
    become("strays", *words, root=True)


def become(*command: str, root: bool) -> NoReturn:
    """Go on as the platform's command.

    Raises:
        Forbidden: root is needed and sudo is not there.
        RunToolsError: the platform is not installed.
    """
    if importlib.util.find_spec("uvicorn") is None:
        raise RunToolsError(
            "only the SDK and the CLI are installed here",
            hint="pip install 'runtools[platform]' brings the platform here; "
            "`runtools auth status` asks the one that you are signed in to",
        )
    # -P: a folder `runtools` where the command was typed is none of our code, and root must not run it.
    argv = [sys.executable, "-P", "-m", "runtools.platform", *command]
    if root and os.geteuid() != 0:
        argv = _through_sudo(command[0], argv)
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 - an argument list, no shell


def _through_sudo(command: str, argv: list[str]) -> list[str]:
    sudo = shutil.which("sudo")
    if sudo is None:
        raise Forbidden(
            f"`runtools {command}` needs root, and there is no sudo", hint="become root"
        )
    output.note(f"runtools {command} needs root: asking sudo")
    names = platform_environment()
    kept = [f"--preserve-env={','.join(names)}"] if names else []
    return [sudo, *kept, "--", *argv]
