"""Which scope each route needs, and the refusal of keys that do not have it.

`calls.call_of` asks here, and no route can reach the platform without it.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.routing import APIRoute, APIWebSocketRoute

from runtools.errors import Forbidden
from runtools.platform.core import access

_NOUNS = {
    "account": "api-key",
    "audit": "audit",
    "events": "sandbox",
    "hosts": "host",
    "inside": "sandbox",
    "models": "model",
    "processes": "sandbox",
    "projects": "project",
    "sandboxes": "sandbox",
    "secrets": "secret",
    "snapshots": "sandbox",
    "templates": "template",
    "sockets": "sandbox",  # terminals: FastAPI gives WebSockets no tags
    "webhooks": "webhook",
}
# What is neither looking (`read`) nor changing (`write`) a thing of that kind. None: any key may.
_OTHERS: dict[tuple[str, str], str | None] = {
    ("account", "me"): None,
    ("sandboxes", "create"): "sandbox:create",
    ("sandboxes", "fork"): "sandbox:create",
    ("sandboxes", "recover"): "sandbox:create",
    ("secrets", "reveal"): "secret:reveal",
}
_OPEN = frozenset({"health"})


def needed(route: APIRoute | APIWebSocketRoute) -> str | None:
    """The scope that a route needs; None: whoever has a key, or nobody, may.

    Raises:
        KeyError: nothing says what it needs.
    """
    tag = str(route.tags[0]) if isinstance(route, APIRoute) and route.tags else "sockets"
    if tag in _OPEN:
        return None
    if (tag, route.name) in _OTHERS:
        return _OTHERS[tag, route.name]
    looks = isinstance(route, APIRoute) and (route.methods or set()) <= {"GET", "HEAD"}
    noun = "files" if "/files" in route.path and tag == "inside" else _NOUNS[tag]
    return f"{noun}:{'read' if looks else 'write'}"


def check(scopes: Iterable[str], route: APIRoute | APIWebSocketRoute) -> None:
    """Refuse a key that may not use the route.

    Raises:
        Forbidden: its scopes do not cover what the route needs.
    """
    scope = needed(route)
    if scope is not None and not access.covers(scopes, scope):
        raise Forbidden(
            f"the API key lacks the scope {scope}",
            hint="make one that has it: runtools auth keys create NAME --scope …",
            details={"needed": scope, "scopes": sorted(scopes)},
        )
