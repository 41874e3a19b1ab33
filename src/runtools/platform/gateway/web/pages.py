"""What the gateway answers by itself: refusals and waiting pages, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from http import HTTPStatus

from runtools.errors import (
    CapacityExhausted,
    DeadlineExceeded,
    PortClosed,
    QuotaExceeded,
    RateLimited,
    RunToolsError,
    SandboxStopped,
    Unavailable,
    WaitsForRoom,
)
from runtools.platform.core.dev_urls import DevUrls, is_open
from runtools.platform.core.states import Operation
from runtools.platform.gateway.web.head import Field, write
from runtools.platform.gateway.web.reloads import MINUTES

RETRY_SECONDS = 2
# What is under way with a sandbox that was waited for in vain.
_UNDER_WAY: Mapping[str, str] = {
    Operation.PAUSING: "The sandbox is being put to sleep",
    Operation.QUEUED: "The sandbox waits to be made",
    Operation.STARTING: "The sandbox is being made",
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto 0;padding:0 1.5rem;"
    "color:#1c1e21;background:#fafafa}h1{font-size:1.35rem;margin:0 0 .5rem}p{margin:.5rem 0}"
    "code{font:.9em ui-monospace,monospace;background:#ececef;padding:.1em .35em;border-radius:4px}"
    "a{color:#3455db}.small{color:#6b6f76;font-size:.85rem;margin-top:2rem}"
    "@media(prefers-color-scheme:dark){body{color:#e6e6e8;background:#16181b}"
    "code{background:#26292e}a{color:#8fa3ff}.small{color:#8b9098}}"
)
_HEADERS: tuple[Field, ...] = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (
        b"Content-Security-Policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    ),
)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of ours.

    Attributes:
        links: further addresses, with what they are called.
        reloads: whether the page looks again by itself.
    """

    status: int
    title: str
    text: str
    links: Sequence[tuple[str, str]] = ()
    reloads: bool = False
    headers: Sequence[Field] = ()

    def to_bytes(self, *, html: bool, body: bool, close: bool) -> bytes:
        """The whole answer; without its body for a HEAD."""
        content = (self._html() if html else self._text()).encode()
        kind = b"text/html; charset=utf-8" if html else b"text/plain; charset=utf-8"
        fields = [
            (b"Content-Type", kind),
            (b"Content-Length", b"%d" % len(content)),
            *_HEADERS,
            *self.headers,
        ]
        if self.reloads:
            fields.append((b"Retry-After", b"%d" % RETRY_SECONDS))
            if html:
                fields.append((b"Refresh", b"%d" % RETRY_SECONDS))
        if close:
            fields.append((b"Connection", b"close"))
        reason = HTTPStatus(self.status).phrase.encode()
        head = write(b"HTTP/1.1 %d %b" % (self.status, reason), fields)
        return head + content if body else head

    def _text(self) -> str:
        more = "".join(f"\n  {address}" for address, _ in self.links)
        return f"{self.title}\n{self.text}{more}\n"

    def _html(self) -> str:
        items = "".join(
            f'<li><a href="{escape(address)}">{escape(name)}</a></li>'
            for address, name in self.links
        )
        more = f"<ul>{items}</ul>" if items else ""
        again = "<p class=small>This page looks again by itself.</p>" if self.reloads else ""
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8>"
            f"<meta name=viewport content='width=device-width'><title>{escape(self.title)}</title>"
            f"<style>{_STYLE}</style><h1>{escape(self.title)}</h1><p>{escape(self.text)}</p>{more}{again}"
        )


UNKNOWN = Page(
    404,
    "There is no such dev URL",
    "No sandbox has it, or it is private: send an API key of its organisation in the header "
    "X-RunTools-Key, or open a link that `runtools sandbox url` makes.",
    headers=(
        (b"X-RunTools-Refused", b"1"),
    ),  # by the gateway: a server's own 404 is another matter
)


def away(address: str, headers: Sequence[Field] = ()) -> Page:
    """To another address, by a GET."""
    fields = ((b"Location", address.encode("latin-1", "replace")), *headers)
    return Page(303, "See there", address, headers=fields)


def of_error(error: RunToolsError, urls: DevUrls, sandbox_id: str, port: int) -> Page:
    """What an error of the way to a sandbox is to whoever asks for it."""
    sentence = str(error)
    if isinstance(error, PortClosed):
        return _waiting(error, urls, sandbox_id, port)
    if isinstance(error, SandboxStopped):
        return Page(410, "The sandbox has stopped", sentence)
    if isinstance(error, QuotaExceeded):
        # How much it may run is nothing for whoever has the address.
        said = "Its organisation runs as much as it may at once. Try again later."
        return Page(error.status, "The sandbox sleeps, and may not be woken now", said)
    if isinstance(error, CapacityExhausted):
        # Nor is what its host runs.
        waits = isinstance(error, WaitsForRoom)
        said = "It goes on by itself once there is." if waits else "Try again later."
        title = "The sandbox sleeps, and there is no room for it now"
        return Page(error.status, title, said, reloads=waits)
    if isinstance(error, RateLimited):
        after = b"%d" % error.details.get("retryAfterSeconds", RETRY_SECONDS)
        return Page(error.status, "Too much at once", sentence, headers=((b"Retry-After", after),))
    if isinstance(error, DeadlineExceeded):
        title = _UNDER_WAY.get(str(error.details.get("operation")), "The sandbox is not ready yet")
        return Page(error.status, title, sentence, reloads=True)
    if isinstance(error, Unavailable):
        return Page(503, "The sandbox cannot be reached now", sentence, reloads=True)
    return Page(error.status, "The sandbox cannot be reached", sentence)


def still(page: Page) -> Page:
    """The same, which has loaded itself often enough."""
    said = f"{page.text} This page has looked for {MINUTES} minutes: reload it to look again."
    return replace(page, text=said, reloads=False)


def of_silence(problem: str, status: int = 502) -> Page:
    """What a server is to whoever asks it, if it gives no answer."""
    return Page(status, "The server in the sandbox gives no answer", problem.capitalize() + ".")


def _waiting(error: PortClosed, urls: DevUrls, sandbox_id: str, port: int) -> Page:
    ports = [one for one in error.details.get("ports", []) if is_open(one)]
    said = f"Start a server in {sandbox_id}, on any address, 127.0.0.1 included."
    if ports:
        said += " Something listens on:"
    elif "ports" in error.details:
        said += " Nothing listens on any other port either."
    return Page(
        503,
        f"Nothing listens on port {port} yet",
        said,
        links=[(urls.url(sandbox_id, one), f"port {one}") for one in ports],
        reloads=True,
    )
