"""Hands an address that opens to the browser: every user of a machine sees what programs are started with.

The browser is given a page on the loopback that leads there, for a moment, and only programs of the same
user: the kernel says whose a connection is. Browsers that may read no files (snaps, Flatpaks) find it, too.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal

from runtools.cli import output
from runtools.errors import InvalidRequest
from runtools.sdk import settings

PATIENCE_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 1.0  # a browser may look before it goes there
_CONNECTIONS: Final = Path("/proc/net/tcp")
_CONNECTIONS_6: Final = Path("/proc/net/tcp6")
Whose = Literal["this user's", "another user's", "unknown"]
_NOT_LED: Final[Mapping[Whose | None, str]] = {
    "another user's": "it is another user's (by sudo, or from outside WSL)",
    "unknown": "the kernel does not say whose it is (it was gone at once, or is on another network of this "
    "machine, as outside a container)",
}
_FOR_OTHERS: Final = (
    "This page leads only programs of the user who asked for it. {}Open the address that the command "
    "printed, or a link that `runtools sandbox url --ttl 1h` makes.\n"
)


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
    with leading_to(link) as (address, came):
        if _is_started(address):
            _see_led(came)
        else:
            output.note("no browser could be started here: open the address yourself")


def _see_led(came: SimpleQueue[Whose]) -> None:
    """Wait for the browser, and say what becomes of it."""
    until, told = time.monotonic() + PATIENCE_SECONDS, set[Whose]()
    while (left := until - time.monotonic()) > 0:  # however many are refused meanwhile
        with output.working("waiting for the browser"):
            whose = _next(came, left)
        if whose == "this user's":
            time.sleep(_AGAIN_SECONDS)
            return
        if whose is not None and whose not in told:
            told.add(whose)
            output.note(
                f"a browser came for the address, and was refused: {_NOT_LED[whose]}; "
                "open the address yourself"
            )
    if not told:
        output.note("no browser has come for the address: open it yourself")


def _next(came: SimpleQueue[Whose], seconds: float) -> Whose | None:
    with suppress(Empty):
        return came.get(timeout=max(0.0, seconds))
    return None


@contextmanager
def leading_to(link: str) -> Iterator[tuple[str, SimpleQueue[Whose]]]:
    """A page on the loopback that leads there; gives its address, and of who comes whose it is.

    Programs of this user are led, and nobody else.
    """
    # Here, for other commands are quicker without them.
    from http.server import BaseHTTPRequestHandler  # noqa: PLC0415
    from socketserver import ThreadingTCPServer  # noqa: PLC0415

    path, came = f"/{secrets.token_urlsafe(16)}", SimpleQueue[Whose]()

    class Page(BaseHTTPRequestHandler):
        timeout = PATIENCE_SECONDS

        def do_GET(self) -> None:
            whose = whose_is(self.connection) if self.path == path else None
            leads = whose == "this user's"
            said = b"" if leads else _refusal(whose).encode()
            self.send_response(303 if leads else 404)
            if leads:
                self.send_header("Location", link)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(said)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(said)
            if whose is not None:
                came.put(whose)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nothing is printed."""

    class Server(ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Who breaks off is told of no more than who does not come."""
            if not isinstance(sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{path}", came
        finally:
            server.shutdown()


def _refusal(whose: Whose | None) -> str:
    """What the page says to who is not led; None: to who asks for another page."""
    why = _NOT_LED.get(whose)
    return _FOR_OTHERS.format("" if why is None else f"Yours was refused: {why}. ")


def whose_is(connection: socket.socket) -> Whose:
    """Whose program is at the other end of a connection on the loopback.

    Unknown: it has gone, or the kernel does not list it here.
    """
    try:
        peer, own = connection.getpeername(), connection.getsockname()
        # A program that speaks IPv6 alone comes from an address of IPv4 in one of IPv6.
        for listed, before in ((_CONNECTIONS, b""), (_CONNECTIONS_6, bytes(10) + b"\xff\xff")):
            ends = _as_listed(peer, before), _as_listed(own, before)
            for line in listed.read_text("ascii").splitlines()[1:]:
                words = line.split()
                if tuple(words[1:3]) == ends:
                    # No program holds it any more; older kernels call it root's.
                    if words[9] == "0":
                        return "unknown"
                    return "this user's" if int(words[7]) == os.getuid() else "another user's"
    except OSError:
        pass
    return "unknown"


def _as_listed(end: tuple[str, int], before: bytes) -> str:
    """An end as the kernel lists it, in words of 32 bits as the machine has them."""
    address = before + socket.inet_aton(end[0])
    words = [address[at : at + 4] for at in range(0, len(address), 4)]
    return "".join(f"{int.from_bytes(one, sys.byteorder):08X}" for one in words) + f":{end[1]:04X}"


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
