"""``runtools sandbox desktop`` and ``screenshot``: a sandbox's screen, for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from runtools.cli import output
from runtools.cli.output import Json
from runtools.cli.sandbox import urls
from runtools.cli.session import Ref, connected
from runtools.errors import InvalidRequest

_STDOUT = "-"


def desktop(
    ref: Ref,
    open_: Annotated[
        bool, typer.Option("--open", help="Open it in the browser, by a link where it is private.")
    ] = False,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="A link that opens as it stands, so long: 30m, 1h, 2d."),
    ] = None,
    json: Json = False,
) -> None:
    """Print the address at which a browser shows the desktop. A paused sandbox is woken."""
    seconds = None if ttl is None else urls.seconds_of(ttl)
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
        port = sandbox.desktop.screen().port
        urls.show(sandbox.urls, port, seconds, open_=open_, json=json)


def screenshot(
    ref: Ref,
    to: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where the PNG goes; -: stdout.",
            show_default="stdout, on a terminal REF.png",
        ),
    ] = None,
) -> None:
    """Take a picture of the desktop. A paused sandbox is woken."""
    place = to or (f"{ref}.png" if sys.stdout.isatty() else _STDOUT)
    with connected() as rt:
        picture = rt.sandboxes.get(ref).desktop.screenshot()
    if place == _STDOUT:
        sys.stdout.buffer.write(picture)
        sys.stdout.buffer.flush()
        return
    try:
        Path(place).write_bytes(picture)
    except OSError as exc:
        raise InvalidRequest(f"--output {place}: {exc.strerror or exc}") from None
    output.note(place)
