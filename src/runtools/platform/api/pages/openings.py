"""The page that lets the browser of who is signed in into a private dev URL.

The address is not believed: only one that names a port of a sandbox of this platform is gone to, and only
with a ticket where the person's org has that sandbox.
"""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from runtools.errors import NotFound, RunToolsError
from runtools.platform.api import guard
from runtools.platform.api.callers import sent
from runtools.platform.api.calls import Call, call_of
from runtools.platform.api.dev_urls import service
from runtools.platform.api.pages import render
from runtools.platform.api.pages.routes import user_of

router = APIRouter(tags=["pages"], include_in_schema=False)

PATH = "/open"
_COOKIE = "__Host-runtools-open"
_SECONDS = 600
_MAX_URL = 2000


@router.get(PATH, name="open_dev_url")
async def open_dev_url(request: Request) -> Response:
    """On to the dev URL, by way of signing in where that is needed."""
    call = call_of(request)
    asked = request.query_params.get("to")
    to = asked if asked is not None else unquote(sent.cookie(request.scope, _COOKIE) or "")
    try:
        sandbox_id, port, url = _wanted(call, to)
        if await user_of(call) is None:
            kept = quote(url, safe="")
            return render.with_cookie(render.away(f"/signin?next={PATH}"), _COOKIE, kept, _SECONDS)
        guard.check_scope(call.who, service.NEEDED)
        address = await service.ticket(call, sandbox_id, port, url)
    except RunToolsError as error:
        shown = render.page("open", {"error": render.said(error), "to": None}, status=error.status)
        return render.without_cookie(shown, _COOKIE)
    if asked is not None:
        return RedirectResponse(address, 303, headers={"Cache-Control": "no-store"})
    # After a form of ours: no browser lets its answer lead to another origin, but a page may.
    return render.without_cookie(render.page("open", {"error": None, "to": address}), _COOKIE)


def _wanted(call: Call, to: str) -> tuple[str, int, str]:
    """The sandbox, the port and the whole address.

    Raises:
        NotFound: it is no dev URL of this platform.
    """
    known = service.names(call.platform)
    try:
        parts = urlsplit(to[:_MAX_URL])
    except ValueError:
        raise _nowhere() from None
    place = known.place(parts.netloc)
    if place is None or not parts.path.isascii() or not parts.query.isascii():
        raise _nowhere()
    query = f"?{parts.query}" if parts.query else ""
    return *place, f"{known.url(*place)}{parts.path or '/'}{query}"


def _nowhere() -> NotFound:
    return NotFound(
        "there is no such dev URL", hint="`runtools sandbox url` prints those there are"
    )
