"""Every route says what it needs."""

from __future__ import annotations

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from runtools.errors import Forbidden
from runtools.platform.api import guard
from runtools.platform.api.app import ROUTERS
from runtools.platform.api.guard import PARTS_PATH, is_peoples, needed
from runtools.platform.api.sandboxes import inside_routes
from runtools.platform.core import access
from runtools.platform.core.access import Caller


def test_every_route_needs_a_scope_that_exists():
    told = {
        (sorted(route.methods)[0], route.path): needed(route)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
    }
    peoples = {
        route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and is_peoples(route)
    }
    assert len(told) > 40
    of_parts = {scope for (_, path), scope in told.items() if path.startswith(PARTS_PATH)}
    assert of_parts <= set(access.PARTS.values())
    assert {scope for scope in told.values() if scope is not None} <= access.SCOPES | of_parts
    assert {path for (_, path), scope in told.items() if scope is None and path not in peoples} == {
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/me",
        "/v1/orgs",
        "/v1/logins",
        "/v1/logins/finish",
    }
    assert peoples == {
        "/v1/orgs/{org_id}/switch",
        "/v1/org/leave",
        "/v1/invitations/accept",
        "/v1/sessions",
        "/v1/sessions/{session_id}",
        "/v1/me/password",
        "/v1/me/close",
        "/v1/me/identities",
        "/v1/me/identities/{identity_id}",
    }
    assert told["POST", "/v1/orgs"] == "platform:write"
    assert told["PATCH", "/v1/members/{user_id}"] == "org:write"
    assert told["POST", "/v1/invitations"] == "org:write"
    assert told["POST", "/v1/sandboxes"] == "sandbox:create"
    assert told["POST", "/v1/sandboxes/{ref}/exec"] == "sandbox:write"
    assert told["PUT", "/v1/sandboxes/{ref}/files"] == "files:write"
    assert told["POST", "/v1/secrets/{name}/reveal"] == "secret:reveal"


def test_a_route_of_which_nothing_is_said_is_not_served():
    router = APIRouter(tags=["something-new"])
    router.add_api_route("/new", lambda: None)
    with pytest.raises(KeyError, match="something-new"):
        needed(router.routes[0])


def test_what_a_run_may_do_is_there_and_is_about_its_sandbox():
    there = {
        (str(route.tags[0]), route.name): route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and route.tags
    }
    for name in guard._OF_A_RUN:
        assert there[name].startswith("/v1/sandboxes/{ref}"), name


@pytest.mark.parametrize(
    ("sandbox", "ref", "may"),
    [("sandbox-a", "sandbox-a", True), ("sandbox-a", "sandbox-b", False), (None, None, False)],
)
def test_a_run_works_in_its_own_sandbox(sandbox, ref, may):
    run = Caller("run", "run_x", "", "org_x", frozenset({"sandbox:write"}), sandbox_id=sandbox)
    [exec_] = [one for one in inside_routes.router.routes if one.name == "exec_"]
    [egress] = [one for one in inside_routes.router.routes if one.name == "change_egress"]
    params = {} if ref is None else {"ref": ref}
    if may:
        guard.check(run, exec_, params)
    else:
        with pytest.raises(Forbidden, match="its own sandbox"):
            guard.check(run, exec_, params)
    with pytest.raises(Forbidden, match="its own sandbox"):
        guard.check(run, egress, params)
