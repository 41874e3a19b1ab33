"""Hands an address that opens to the browser: every user of a machine sees what programs are started with.

The browser is given a page on the loopback that leads there, once, and only programs of the same user: the
kernel says whose a connection is. Browsers that may read no files (as snaps and Flatpaks) find it, too.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import Final

from runtools.cli import output
from runtools.errors import InvalidRequest
from runtools.sdk import settings

PATIENCE_SECONDS: Final = 30.0
_CONNECTIONS: Final = Path("/proc/net/tcp")


def open_plainly(address: str) -> None:
    """Open an address that is no secret."""
    if not _is_started(address):
        output.note("no browser could be started here: open the address yourself")


def open_unseen(link: str) -> None:
    """Open an address that is one.

    Raises:
        InvalidRequest: there is no place for the page, where the kernel does not say whose a connection is.
    """
    if not _CONNECTIONS.exists():
        open_plainly(_page(link).as_uri())
        return
    with leading_to(link) as (address, was_there):
        if not _is_started(address):
            output.note("no browser could be started here: open the address yourself")
        elif not was_there.wait(PATIENCE_SECONDS):
            output.note("no browser has come for the address: open it yourself")


@contextmanager
def leading_to(link: str) -> Iterator[tuple[str, threading.Event]]:
    """A page on the loopback that leads there once; gives its address, and what is set when it has."""
    # Here, for other commands are quicker without them.
    from http.server import BaseHTTPRequestHandler  # noqa: PLC0415
    from socketserver import ThreadingTCPServer  # noqa: PLC0415

    path, was_there = f"/{secrets.token_urlsafe(16)}", threading.Event()
    turns = threading.Semaphore(1)  # one, and it is not given back

    class Page(BaseHTTPRequestHandler):
        timeout = PATIENCE_SECONDS

        def do_GET(self) -> None:
            ours = self.path == path and is_of_this_user(self.connection)
            leads = ours and turns.acquire(blocking=False)
            self.send_response(303 if leads else 404)
            if leads:
                self.send_header("Location", link)
            self.send_header("Content-Length", "0")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            if leads:
                was_there.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nothing is printed."""

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{path}", was_there
        finally:
            server.shutdown()


def is_of_this_user(connection: socket.socket) -> bool:
    """Whether the other end of a connection on the loopback is a program of the same user."""
    ends = _as_listed(connection.getpeername()), _as_listed(connection.getsockname())
    for line in _CONNECTIONS.read_text("ascii").splitlines()[1:]:
        words = line.split()
        if tuple(words[1:3]) == ends:
            return int(words[7]) == os.getuid()
    return False


def _as_listed(end: tuple[str, int]) -> str:
    number = int.from_bytes(socket.inet_aton(end[0]), sys.byteorder)
    return f"{number:08X}:{end[1]:04X}"


def _page(link: str) -> Path:
    """A page that leads there, and that only this user reads."""
    logins = settings.logins_file()
    if logins is None:
        raise InvalidRequest("--open: neither XDG_CONFIG_HOME nor HOME is set")
    page = logins.with_name("open.html")
    page.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    page.unlink(missing_ok=True)
    fd = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(f'<meta http-equiv="refresh" content="0; url={escape(link)}">\n')
    return page


def _is_started(address: str) -> bool:
    with suppress(webbrowser.Error):
        return webbrowser.open(address)
    return False
