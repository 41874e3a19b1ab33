"""What a line of the audit log says of a request."""

from __future__ import annotations

from starlette.types import Scope

from runtools.platform.api.audit.store import Line
from runtools.platform.api.calls import OWN, Call
from runtools.platform.core.ids import new_id

_RESOURCE_LETTERS, _SOURCE_LETTERS = 200, 64  # what the columns hold


def line_of(call: Call, scope: Scope, status: int | None, error: str | None = None) -> Line:
    """The line of a request that is answered so; with no status it is not answered yet."""
    noun, verb = _named(scope)
    named = list(scope.get("path_params", {}).values())
    resource = call.subject or (str(named[-1]) if named else None)
    own = None if call.caller is None else call.caller.org_id
    return Line(
        id=new_id("aud"),
        org_id=own if call.line_org == OWN else call.line_org,
        at=call.platform.clock.now(),
        actor=call.entering or ("-" if call.caller is None else call.actor),
        action=f"{noun}.{verb.rstrip('_')}",
        resource=None if resource is None else _clean(resource)[:_RESOURCE_LETTERS],
        status=status,
        error=error or call.failed,
        request_id=call.request_id,
        source=_clean(call.source)[:_SOURCE_LETTERS],
    )


def _named(scope: Scope) -> tuple[str, str]:
    """The noun and verb of a route; FastAPI gives WebSockets no tags: those there are show processes."""
    route = scope.get("route")
    if route is None:
        return "route", "none"
    tags = getattr(route, "tags", None)
    return (tags[0] if tags else "processes"), route.name


def _clean(text: str) -> str:
    """What a caller chose, without what no database keeps and no terminal should show."""
    return "".join(char if char.isprintable() else "?" for char in text)
