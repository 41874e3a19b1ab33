"""``runtools login`` and ``logout``."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

import runtools
from runtools.cli import kept, lazy, output, stdin
from runtools.cli.output import Json
from runtools.cli.session import RETRY_SECONDS, flag
from runtools.errors import Unauthenticated
from runtools.sdk import settings

if TYPE_CHECKING:
    from runtools.cli import key_looks as looks
    from runtools.sdk.shapes.people import Login
    from runtools.sdk.sync import sessions
else:
    looks = lazy.module("runtools.cli.key_looks")
    sessions = lazy.module("runtools.sdk.sync.sessions")

_PANEL = "Organisation"
_SESSION = "rt_session_"
_GOODBYE_SECONDS = 3.0

Url = Annotated[
    str | None, typer.Option(metavar="URL", help="The platform. Default: the current one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=_PANEL)(login)
    app.command(rich_help_panel=_PANEL)(logout)


def login(
    url: Url = None,
    api_key: Annotated[
        bool, flag("--api-key", help="Keep an API key, read from stdin, instead of a session.")
    ] = False,
    no_browser: Annotated[
        bool, flag("--no-browser", help="Open none; the address is printed in any case.")
    ] = False,
    json: Json = False,
) -> None:
    """Sign in, by a browser on any machine or by an API key."""
    address = settings.address(url)
    secret = (
        stdin.secret("API key", "runtools login --api-key < file-with-the-key")
        if api_key
        else _by_browser(address, opens=not no_browser)
    )
    with runtools.RunTools(secret, address, retry_seconds=RETRY_SECONDS) as rt:
        me = rt.me()
    file = kept.keep(address, secret)
    output.show(me, lambda: looks.me(me, address))
    if not output.is_json():
        output.note(f"kept in {file}")


def logout(url: Url = None) -> None:
    """End the session here, and forget what login kept."""
    address = settings.address(url)
    secret = settings.logins().secrets.get(address)
    if secret is None:
        raise Unauthenticated(f"not signed in at {address}", hint="runtools login")
    # First: who cannot reach the platform is signed out here all the same.
    kept.forget(address)
    if secret.startswith(_SESSION):
        with (
            contextlib.suppress(Unauthenticated),
            runtools.RunTools(secret, address, retry_seconds=_GOODBYE_SECONDS) as rt,
        ):
            rt.sessions.end()
    output.note(f"signed out of {address}")


def _by_browser(address: str, *, opens: bool) -> str:
    pending = sessions.PendingLogin(address, retry_seconds=RETRY_SECONDS)
    try:
        asked = pending.start(_machine())
        output.note(f"open  {asked.url}")
        output.note(f"code  {asked.code}")
        if opens and sys.stderr.isatty() and "SSH_CONNECTION" not in os.environ:
            # Without the code: every user of this machine sees what programs are started with.
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(asked.url)
        with output.working("waiting until somebody lets this command line in"):
            return _awaited(pending, asked)
    finally:
        pending.close()


def _awaited(pending: sessions.PendingLogin, asked: Login) -> str:
    while True:
        secret = pending.finish(asked)
        if secret is not None:
            return secret
        time.sleep(asked.interval_seconds)


def _machine() -> str:
    name = "".join(char for char in socket.gethostname() if char.isalnum() or char in "-._")
    return name[:100] or "a machine"
