"""``runtools sandbox url``: the address of a port."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import output
from runtools.cli.output import Json
from runtools.cli.sandbox import handing
from runtools.cli.session import Ref, connected
from runtools.errors import InvalidRequest

if TYPE_CHECKING:
    from runtools.sdk.sync.dev_urls import DevUrls

_TTL = re.compile(r"([1-9][0-9]*)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def url(
    ref: Ref,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", "-p", help="The port inside; default: all without a choice of their own."
        ),
    ] = None,
    public: Annotated[
        bool | None,
        typer.Option(
            "--public/--private", help="Choose who may enter: whoever has the address, or the org."
        ),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="A link that opens as it stands, so long: 30m, 1h, 2d."),
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Open it in the browser, by a link where it is private.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the address of a port, alone. What listens there may be bound to 127.0.0.1.

    A paused sandbox wakes when somebody asks for it. Without a port, the pattern of all addresses.
    """
    seconds = None if ttl is None else seconds_of(ttl)
    if port is None and (open_ or seconds is not None):
        raise InvalidRequest("--open and --ttl are about one port", hint="name it: --port 3000")
    with connected() as rt:
        urls = rt.sandboxes.get(ref).urls
        if public is not None:
            urls.choose("public" if public else "private", port)
        if port is None:
            all_ = urls.list()
            output.show(all_, lambda: all_.pattern) if json else output.line(all_.pattern)
        else:
            show(urls, port, seconds, open_=open_, json=json)


def show(urls: DevUrls, port: int, seconds: int | None, *, open_: bool, json: bool) -> None:
    """Print the address of a port, or a link to it that lasts so long; and open it, if that is wanted."""
    found = urls.get(port)
    link = None
    if seconds is not None:
        link = urls.link(port, seconds)
    elif open_ and found.access == "private":
        link = urls.link(port)
    if seconds is not None and link is not None:
        shown = link.url
        output.show(link, lambda: shown) if json else output.line(shown)
    elif json:
        output.show(found, lambda: found.url)
    else:
        output.line(found.url)
    if open_:
        handing.open_plainly(found.url) if link is None else handing.open_unseen(link.url)


def seconds_of(text: str) -> int:
    """What ``--ttl`` says."""
    found = _TTL.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidRequest(f"--ttl {text!r} is no time", hint="30m, 1h or 2d, or seconds")
    return int(found[1]) * _SECONDS[found[2]]
