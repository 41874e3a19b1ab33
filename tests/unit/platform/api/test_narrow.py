"""Routers that are looked into only for paths that can be their own."""

from __future__ import annotations

import re

import pytest
from fastapi import APIRouter
from starlette.routing import Match, Route, WebSocketRoute

from runtools.platform.api.app import PAGES, ROUTERS
from runtools.platform.api.narrow import NarrowRouter

_PATHS = sorted(
    {
        re.sub(r"{\w+:path}", "a/b", re.sub(r"{\w+}", "x-1", route.path))
        for router in (*ROUTERS, *PAGES)
        for route in router.routes
        if isinstance(route, Route | WebSocketRoute)
    }
)


_KINDS = (("http", "GET"), ("http", "POST"), ("websocket", "GET"))


@pytest.mark.parametrize("router", [*ROUTERS, *PAGES], ids=lambda one: one.routes[0].path)
def test_each_is_looked_into_for_exactly_what_its_routes_match(router: APIRouter) -> None:
    narrow = NarrowRouter(router)
    for path in (*_PATHS, "/", "/v1/none", "/v1/sandboxes/x/none"):
        matched = any(
            route.matches({"type": kind, "method": method, "path": path, "headers": []})[0]
            is not Match.NONE
            for route in router.routes
            for kind, method in _KINDS
        )
        assert narrow.looks_into(path) is matched, path
