"""How pages are made: templates that escape everything, and headers that let nothing foreign in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import RedirectResponse, Response

from runtools.errors import InvalidRequest, RunToolsError
from runtools.platform.api.calls import Call

_FOLDER = Path(__file__).parent
_PAGES = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# The referrer policy lets forms say their origin; `no-referrer` would make it null.
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
AWAY = 303
_TYPES = {".css": "text/css", ".js": "text/javascript"}
_MAX_FIELDS = 10


def page(name: str, values: Mapping[str, object], *, status: int = 200) -> Response:
    """A page from its template."""
    body = _PAGES.get_template(f"{name}.html").render(values)
    return Response(body, status, dict(_HEADERS), "text/html")


def away(path: str) -> Response:
    """To another page of ours, by a GET."""
    return RedirectResponse(path, AWAY, headers=dict(_HEADERS))


def file(name: str) -> Response:
    """A file that pages load."""
    path = _FOLDER / "static" / name
    headers = dict(_HEADERS) | {"Cache-Control": "public, max-age=3600"}
    return Response(path.read_bytes(), 200, headers, _TYPES[path.suffix])


def fields(call: Call) -> dict[str, str]:
    """What a form sends.

    Raises:
        InvalidRequest: it is no form of ours.
    """
    try:
        pairs = parse_qsl(
            call.body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(call.body),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as exc:
        raise InvalidRequest("that is no form of this page") from exc
    if any("\0" in word for pair in pairs for word in pair):
        raise InvalidRequest("that is no form of this page")
    return dict(pairs)


def said(error: RunToolsError) -> str:
    """An error as a sentence or two on a page."""
    message = error.message.partition(": ")[2] if "fields" in error.details else error.message
    sentence = message[:1].upper() + message[1:]
    hint = f" ({error.hint})" if error.hint else ""
    return f"{sentence}{hint}."


def with_cookie(answer: Response, name: str, value: str, seconds: int) -> Response:
    """The answer with a cookie that no script reads and no other site's form carries along."""
    answer.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax"
    )
    return answer


def without_cookie(answer: Response, name: str) -> Response:
    """The answer that makes the browser forget a cookie."""
    answer.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")
    return answer


def browser(call_headers: bytes | None) -> str:
    """What a browser calls itself, in a word or two."""
    agent = (call_headers or b"").decode("latin-1")
    for mark, name in (("Firefox/", "Firefox"), ("Edg/", "Edge"), ("Chrome/", "Chrome")):
        if mark in agent:
            return name
    return "Safari" if "Safari/" in agent else "a browser"
