"""What a request brings to show who sends it: a secret in a header, or a browser's cookie and origin.

A browser sends the cookie with whatever any page asks it to. So what changes anything by a cookie, and
every WebSocket opened by one, must come from a page of ours: its ``Origin`` says so, and none can forge it.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import cookie_parser
from starlette.types import Scope

from runtools.errors import Forbidden
from runtools.platform.api.sessions.store import PREFIX
from runtools.platform.kit import http

SESSION_COOKIE = "__Host-runtools"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def secret(scope: Scope) -> str | None:
    """The key or session in a header: what programs send."""
    given = http.bearer(scope)
    if given is not None:
        return given
    other = http.header(scope, b"x-api-key")
    return None if other is None else other.strip().decode("latin-1")


def cookie(scope: Scope, name: str) -> str | None:
    """The value of a cookie: what browsers send."""
    given = http.header(scope, b"cookie")
    if given is None:
        return None
    return cookie_parser(given.decode("latin-1")).get(name) or None


def session(scope: Scope) -> str | None:
    """The session in the cookie; no API key is taken from there."""
    value = cookie(scope, SESSION_COOKIE)
    return value if value is not None and value.startswith(PREFIX) else None


def is_own(scope: Scope, public_url: str) -> bool:
    """Whether a page of ours sends it: of the public address, or of this very loopback address."""
    origin = (http.header(scope, b"origin") or b"").decode("latin-1")
    if public_url and origin == _origin(public_url):
        return True
    host = _host(scope)
    return origin == f"http://{host}" and _is_loopback(host)


def check_own(scope: Scope, public_url: str) -> None:
    """Refuse what a page of somebody else sends.

    Raises:
        Forbidden: the origin is another one, or none is said.
    """
    if not is_own(scope, public_url):
        raise Forbidden(
            "this can be sent by a page of the platform alone",
            hint="programs send a key or session in the Authorization header; "
            "behind a proxy, the setting public_url says the address",
        )


def keeps_cookies(scope: Scope, public_url: str) -> bool:
    """Whether a browser keeps our cookies here: over TLS, or on the machine itself."""
    host = _host(scope)
    secure = public_url.startswith("https://") and host == urlsplit(public_url).netloc
    return secure or scope["scheme"] in ("https", "wss") or _is_loopback(host)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _host(scope: Scope) -> str:
    return (http.header(scope, b"host") or b"").decode("latin-1")


def _is_loopback(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in _LOOPBACK
    except ValueError:
        return False
