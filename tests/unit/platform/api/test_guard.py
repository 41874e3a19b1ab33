"""Every route says what it needs."""

from __future__ import annotations

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from runtools.platform.api.app import ROUTERS
from runtools.platform.api.guard import needed
from runtools.platform.core import access


def test_every_route_needs_a_scope_that_exists():
    told = {
        (sorted(route.methods)[0], route.path): needed(route)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
    }
    assert len(told) > 40
    assert {scope for scope in told.values() if scope is not None} <= access.SCOPES
    assert {path for (_, path), scope in told.items() if scope is None} == {
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/me",
    }
    assert told["POST", "/v1/sandboxes"] == "sandbox:create"
    assert told["POST", "/v1/sandboxes/{ref}/exec"] == "sandbox:write"
    assert told["PUT", "/v1/sandboxes/{ref}/files"] == "files:write"
    assert told["POST", "/v1/secrets/{name}/reveal"] == "secret:reveal"


def test_a_route_of_which_nothing_is_said_is_not_served():
    router = APIRouter(tags=["something-new"])
    router.add_api_route("/new", lambda: None)
    with pytest.raises(KeyError, match="something-new"):
        needed(router.routes[0])
