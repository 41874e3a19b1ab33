"""What each route needs of its caller, and the refusal of those who do not have it.

`calls.call_of` asks here, and no route can reach the platform without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.routing import APIRoute, APIWebSocketRoute

from runtools.errors import Forbidden
from runtools.platform.core import access
from runtools.platform.core.access import Caller

_NOUNS = {
    "account": "api-key",
    "agents": "agent",
    "audit": "audit",
    "deploys": "deploy",
    "desktop": "sandbox",
    "dev-urls": "sandbox",
    "events": "sandbox",
    "hosts": access.PLATFORM,
    "inside": "sandbox",
    "limits": "org",
    "models": "model",
    "processes": "sandbox",
    "people": access.PLATFORM,
    "projects": "project",
    "runs": "agent",
    "threads": "agent",
    "sandboxes": "sandbox",
    "invitations": "org",
    "members": "org",
    "orgs": "org",
    "secrets": "secret",
    "snapshots": "sandbox",
    "ssh-access": "sandbox",
    "ssh-keys": "ssh-key",
    "standing": "sandbox",
    "templates": "template",
    "tools": "tool",
    "sockets": "sandbox",  # terminals: FastAPI gives WebSockets no tags
    "usage": "org",
    "webhooks": "webhook",
}
# What is neither looking (`read`) nor changing (`write`) a thing of that kind. None: any key may.
_OTHERS: dict[tuple[str, str], str | None] = {
    ("account", "me"): None,
    ("dev-urls", "of_org"): "org:read",
    ("dev-urls", "choose_for_org"): "org:write",
    ("limits", "change"): f"{access.PLATFORM}:write",
    ("limits", "of_org"): f"{access.PLATFORM}:read",
    ("orgs", "create"): f"{access.PLATFORM}:write",
    ("orgs", "list_"): None,
    **{("runs", name): "agent:run" for name in ("run", "cancel", "approve", "steer", "continue_")},
    **{("runs", name): "agent:run" for name in ("ai_sdk", "ag_ui")},
    **{("threads", name): "agent:run" for name in ("change", "delete")},
    ("sandboxes", "create"): "sandbox:create",
    ("sandboxes", "fork"): "sandbox:create",
    ("sandboxes", "recover"): "sandbox:create",
    ("secrets", "reveal"): "secret:reveal",
    ("deploys", "plan"): "deploy:read",
    ("tools", "execute"): "tool:run",
}
_NO_PARAMS: Mapping[str, Any] = {}
_PARTS = {str(part): scope for part, scope in access.PARTS.items()}
# What a run may do, and only with its own sandbox.
_OF_A_RUN = frozenset(
    {
        ("sandboxes", "get"),
        # To start a command wakes it, too; one resumes where nobody knows what runs in it.
        ("sandboxes", "resume"),
        *(("desktop", name) for name in ("get", "screenshot", "move", "click", "drag", "scroll")),
        *(("desktop", name) for name in ("type_", "press", "clipboard", "fill_clipboard")),
        *(("desktop", name) for name in ("windows", "open_url")),
        *(("dev-urls", name) for name in ("get", "create_link")),
        *(("inside", name) for name in ("exec_", "signal_exec", "stats", "stats_history")),
        *(("inside", name) for name in ("read", "write", "remove", "stat", "list_", "watch")),
        *(("inside", name) for name in ("mkdir", "move", "copy", "edit", "chmod")),
        *(("inside", name) for name in ("download", "upload")),
        *(("processes", name) for name in ("start", "list_", "get", "output", "follow")),
        *(("processes", name) for name in ("send_input", "close_input", "signal", "resize")),
        ("processes", "end"),
    }
)
# What a person alone may do, whatever the role: it is about the person.
_PEOPLES = frozenset({("orgs", "switch"), ("orgs", "leave"), ("invitations", "accept")})
_OPEN = frozenset({"health", "logins", "metrics", "pages"})
PARTS_PATH = "/parts/"
"""What lies below is for parts of the platform: one folder for each, ``/parts/<part>``."""


def needed(route: APIRoute | APIWebSocketRoute) -> str | None:
    """The scope that a route needs; None: whoever was let in, or nobody, may.

    Raises:
        KeyError: nothing says what it needs.
    """
    if route.path.startswith(PARTS_PATH):
        return _PARTS[route.path.removeprefix(PARTS_PATH).partition("/")[0]]
    tag = str(route.tags[0]) if isinstance(route, APIRoute) and route.tags else "sockets"
    if tag in _OPEN:
        return None
    if is_peoples(route):
        return None
    if (tag, route.name) in _OTHERS:
        return _OTHERS[tag, route.name]
    looks = isinstance(route, APIRoute) and (route.methods or set()) <= {"GET", "HEAD"}
    noun = "files" if "/files" in route.path and tag == "inside" else _NOUNS[tag]
    return f"{noun}:{'read' if looks else 'write'}"


def is_peoples(route: APIRoute | APIWebSocketRoute) -> bool:
    """Whether a person alone may use the route."""
    tag = str(route.tags[0]) if isinstance(route, APIRoute) and route.tags else ""
    return tag in ("sessions", "identities") or (tag, route.name) in _PEOPLES


def check_place(caller: Caller, path: str) -> None:
    """Keep parts of the platform to what is for them, and everybody else away from it.

    Before any route: so nobody learns what there is.

    Raises:
        Forbidden: it is not for this caller.
    """
    if path.startswith(PARTS_PATH) is (caller.kind == "part"):
        return
    if caller.kind == "part":
        raise Forbidden(
            f"the part {caller.id} of the platform has no business here",
            hint=f"it may use what lies below {PARTS_PATH}{caller.id}",
        )
    raise Forbidden("that is for parts of the platform alone", hint="no API key opens it")


def check(
    caller: Caller, route: APIRoute | APIWebSocketRoute, params: Mapping[str, Any] = _NO_PARAMS
) -> None:
    """Refuse a caller who may not use the route; ``params`` are those in its path.

    Raises:
        Forbidden: the caller's scopes do not cover what the route needs.
    """
    if caller.kind == "run":
        _check_run(caller, route, params)
    if is_peoples(route) and caller.user_id is None:
        raise Forbidden(
            "that is for people who are signed in, and an API key is none",
            hint="runtools login",
        )
    scope = needed(route)
    if scope is not None:
        check_scope(caller, scope)


def _check_run(
    caller: Caller, route: APIRoute | APIWebSocketRoute, params: Mapping[str, Any]
) -> None:
    tag = str(route.tags[0]) if isinstance(route, APIRoute) and route.tags else ""
    mine = caller.sandbox_id is not None and params.get("ref") == caller.sandbox_id
    if not mine or (tag, route.name) not in _OF_A_RUN:
        raise Forbidden(
            f"{caller.id} may work in its own sandbox and do nothing else",
            hint="its sandbox is called by its id",
        )


def check_scope(caller: Caller, scope: str) -> None:
    """Refuse a caller who does not have the scope, where it is not the route alone that says so.

    Raises:
        Forbidden: the caller's scopes do not cover it.
    """
    if access.covers(caller.scopes, scope):
        return
    details = {"needed": scope, "scopes": sorted(caller.scopes)}
    if scope.startswith(f"{access.PLATFORM}:"):
        raise Forbidden(
            f"this acts on the whole machine and needs the operator's right {scope}",
            hint="the key in client.json of the home has it, and so have the users it was given to",
            details=details,
        )
    if caller.kind == "part":
        raise Forbidden(f"that is not for the part {caller.id} of the platform")
    if caller.kind == "key":
        raise Forbidden(
            f"the API key lacks the scope {scope}",
            hint="make one that has it: runtools auth keys create NAME --scope …",
            details=details,
        )
    if caller.role is None:
        raise Forbidden(
            "you are a member of no organisation, or not of this one any more",
            hint="`runtools org list` shows yours; an invitation lets you into another",
            details=details,
        )
    raise Forbidden(
        f"a {caller.role} may not do what needs {scope}",
        hint="ask an Admin of the organisation",
        details=details,
    )
