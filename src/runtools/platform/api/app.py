"""Puts the api together. Everything it needs is handed in; boot decides what that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from runtools.errors import InvalidRequest, NotFound
from runtools.platform.api import document, reconcile
from runtools.platform.api.agents import routes as agents
from runtools.platform.api.audit import routes as audit
from runtools.platform.api.audit.edge import Audit
from runtools.platform.api.callers import parts
from runtools.platform.api.callers.door import Door
from runtools.platform.api.calls import call_of
from runtools.platform.api.deploys import routes as deploys
from runtools.platform.api.desktop import routes as desktop
from runtools.platform.api.dev_urls import parts as dev_url_parts
from runtools.platform.api.dev_urls import routes as dev_urls
from runtools.platform.api.edge import Edge
from runtools.platform.api.events import routes as events
from runtools.platform.api.events.bus import Bus
from runtools.platform.api.frontends import routes as frontends
from runtools.platform.api.health import routes as health
from runtools.platform.api.hosts import routes as hosts
from runtools.platform.api.hosts.follow import follow
from runtools.platform.api.hosts.registry import Hosts
from runtools.platform.api.idempotency.edge import Idempotency
from runtools.platform.api.identities import routes as identities
from runtools.platform.api.identities.provider import Provider
from runtools.platform.api.invitations import routes as invitations
from runtools.platform.api.keys import routes as keys
from runtools.platform.api.keys.service import Keys
from runtools.platform.api.limits import routes as limits
from runtools.platform.api.logins import routes as logins
from runtools.platform.api.members import routes as members
from runtools.platform.api.metrics import routes as metrics
from runtools.platform.api.metrics import token
from runtools.platform.api.models import routes as models
from runtools.platform.api.narrow import NarrowRouter
from runtools.platform.api.orgs import routes as orgs
from runtools.platform.api.pages import accounts, approvals, invites, openings, provider
from runtools.platform.api.pages import routes as pages
from runtools.platform.api.platform import Platform
from runtools.platform.api.processes import routes as processes
from runtools.platform.api.processes.tickets import Tickets
from runtools.platform.api.projects import routes as projects
from runtools.platform.api.runs import routes as runs
from runtools.platform.api.runs.readers import Readers
from runtools.platform.api.sandboxes import inside_routes, routes
from runtools.platform.api.secrets import routes as secrets
from runtools.platform.api.sessions import routes as sessions
from runtools.platform.api.sessions.service import Sessions
from runtools.platform.api.snapshots import routes as snapshots
from runtools.platform.api.ssh_access import part_routes as ssh_door
from runtools.platform.api.ssh_access import routes as ssh_access
from runtools.platform.api.ssh_keys import routes as ssh_keys
from runtools.platform.api.standing import routes as standing
from runtools.platform.api.templates import routes as templates
from runtools.platform.api.threads import routes as threads
from runtools.platform.api.tools import routes as tools
from runtools.platform.api.usage import routes as usage
from runtools.platform.api.usage.service import look_on
from runtools.platform.api.users import routes as people
from runtools.platform.api.vault import service as vaults
from runtools.platform.api.vault import store as vault_store
from runtools.platform.api.vault.vault import Vault
from runtools.platform.api.webhooks import routes as webhooks
from runtools.platform.api.webhooks.sender import Sender
from runtools.platform.api.workers import connection, dispatch
from runtools.platform.kit import http
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.platform.kit.outbound import Outbound, networks
from runtools.platform.kit.passwords import Passwords
from runtools.platform.kit.tracing import OFF, Tracing

# Those that are asked most often first: routers are tried in this order.
ROUTERS = (
    inside_routes.router,
    routes.router,
    processes.router,
    secrets.router,
    health.router,
    metrics.router,
    keys.router,
    projects.router,
    ssh_keys.router,
    ssh_access.router,
    ssh_door.router,
    limits.router,
    usage.router,
    events.router,
    snapshots.router,
    templates.router,
    hosts.router,
    audit.router,
    webhooks.router,
    orgs.router,
    members.router,
    invitations.router,
    sessions.router,
    identities.router,
    people.router,
    logins.router,
    models.router,
    deploys.router,
    agents.router,
    runs.router,
    frontends.router,
    threads.router,
    connection.router,
    tools.router,
    standing.router,
    desktop.router,
    dev_urls.router,
    dev_url_parts.router,
)

PAGES = (
    pages.router,
    accounts.router,
    invites.router,
    approvals.router,
    provider.router,
    openings.router,
)

# We trace and count ourselves: nothing of the environment may make the framework tell somebody else.
_NONE: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}


def create_app(
    db: Database,
    hosts: Hosts,
    clock: Clock,
    settings: Settings,
    vault: Vault,
    provider_keys: Mapping[str, str],
    tracing: Tracing = OFF,
    install_id: str = "",
) -> FastAPI:
    """The api as an ASGI application; ``app.state.platform`` is what it works with.

    The schema must be up to date (`schema.upgrade`), the vault open (`Vault.ready`), and there must be
    a first org and key (`keys.first.ensure_first`). While its lifespan runs it follows the hosts'
    reports and repairs.

    Args:
        provider_keys: API keys of model providers that the machine's environment holds, by name.
        install_id: of the home, by which others tell this platform from another at its address.
    """
    door = Door(db, clock, settings.session_idle, parts.of(settings))
    platform = Platform(
        db=db,
        hosts=hosts,
        clock=clock,
        settings=settings,
        bus=Bus(),
        door=door,
        keys=Keys(db, clock, door),
        sessions=Sessions(
            db, clock, door, idle=settings.session_idle, lasts=timedelta(settings.session_days)
        ),
        passwords=Passwords(memory_kb=settings.password_memory_kb, rounds=settings.password_rounds),
        provider=Provider(settings, clock) if settings.oidc_issuer else None,
        vault=vault,
        provider_keys=provider_keys,
        tickets=Tickets(db, clock, door, settings.session_idle, settings.public_url),
        outbound=Outbound(networks(settings.outbound_allow)),
        metrics_token=token.of(settings),
        readers=Readers(clock),
        tracing=tracing,
        install_id=install_id,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        holder = await vaults.join(platform)
        platform.last.append(lambda: db.write(vault_store.let_go, holder.id))
        platform.spawn(vaults.stay(platform, holder), "saying which master keys are at hand")
        for host_id in hosts.ids:
            platform.spawn(follow(platform, host_id), f"following host {host_id}")
        platform.spawn(reconcile.loop(platform), "reconciling")
        platform.spawn(look_on(platform), "looking at the disks")
        platform.spawn(Sender(platform).run(), "sending webhooks")
        platform.spawn(dispatch.loop(platform), "offering runs")
        try:
            yield
        finally:
            await asyncio.shield(platform.close())

    app = without_platform(lifespan)
    app.state.platform = platform
    # The last one added stands outermost.
    app.add_middleware(Audit, platform=platform)
    app.add_middleware(Idempotency)
    app.add_middleware(Edge, platform=platform, pages=_paths(PAGES))
    return app


def without_platform(lifespan: object = None) -> FastAPI:
    """The routes alone: enough to write the OpenAPI document."""
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, telemetry=_NONE)  # type: ignore[arg-type]
    for router in (*ROUTERS, *PAGES):
        app.include_router(NarrowRouter(router))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.openapi = lambda: _document_once(app)  # type: ignore[method-assign]
    return app


def _paths(routers: Iterable[APIRouter]) -> frozenset[str]:
    routes = (route for router in routers for route in router.routes)
    return frozenset(route.path for route in routes if isinstance(route, Route))


def _document_once(app: FastAPI) -> dict[str, object]:
    if app.openapi_schema is None:
        app.openapi_schema = document.document(app)
    return app.openapi_schema


async def _invalid(_request: Request, error: Exception) -> Response:
    """A parameter of the path or query is wrong; the edge answers."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    # Where it is (path, query, header) comes first; a field of a body may have such a name, too.
    raise http.invalid([{**one, "loc": one["loc"][1:]} for one in error.errors()]) from None


async def _no_route(request: Request, error: Exception) -> Response:
    """No such route, or not by this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    what = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        raise NotFound(f"no route {what}", hint="GET /openapi.json lists the routes")
    if error.status_code == 405:
        wrong = InvalidRequest(f"no route {what}", hint="GET /openapi.json lists the methods")
        answer = http.failure(wrong, call_of(request).request_id)
        answer.status_code = 405
        answer.headers["Allow"] = ", ".join(_methods(request))
        return answer
    raise InvalidRequest(str(error.detail)[:500])


def _methods(request: Request) -> list[str]:
    """By which methods there are routes of the path."""
    found: set[str] = set()
    for router in (*ROUTERS, *PAGES):
        for route in router.routes:
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
                found |= route.methods or set()
    return sorted(found)
