"""The api process: the REST API over the database and the host of this machine. No root."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping

import uvicorn
from starlette.types import ASGIApp

from runtools.errors import Unavailable
from runtools.platform.api import schema
from runtools.platform.api.app import create_app
from runtools.platform.api.hosts.registry import Hosts
from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.api.keys.first import another, ensure_first
from runtools.platform.boot import home, keyring
from runtools.platform.boot.mcp_door import McpDoor
from runtools.platform.core.models import KEYS
from runtools.platform.kit import connection, websocket
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings, environment
from runtools.platform.kit.db import Database
from runtools.platform.kit.tracing import from_settings
from runtools.sdk.shapes import HostView

log = logging.getLogger(__name__)

_HOST_WITHIN_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 0.1
_GRACE_SECONDS = 5
_KEEP_SECONDS = 75  # longer than clients keep idle connections, so that they close first


def database_url(settings: Settings) -> str:
    """Where the records are: the setting, else a file in the home."""
    return settings.database_url or f"sqlite:///{settings.api_home / 'runtools.db'}"


def provider_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """The API keys of model providers, and of the search, that an environment holds, by name.

    A file of an environment may have left line ends at theirs.
    """
    return {name: key for name in sorted(KEYS) if (key := environ.get(name, "").strip())}


async def migrate(settings: Settings, *, need_key: bool) -> int:
    """Bring the schema up to date and print the first key, if there is one to hand over, as JSON.

    It goes to a pipe of the supervisor, which writes it where only its owner reads it.
    """
    db, clock = Database(database_url(settings)), SystemClock()
    try:
        await schema.upgrade(db)
        await keyring.open_vault(settings, db, clock)
        org_id, key = await ensure_first(db, clock)
        if key is None and need_key:
            key = await another(db, clock, org_id, "another first key")
    finally:
        await db.close()
    json.dump({"apiKey": key}, sys.stdout)
    return 0


async def rekey(settings: Settings) -> int:
    """Change over to another master key, beside the running platform."""
    db = Database(database_url(settings))
    try:
        await schema.check(db)
        return await keyring.rekey(settings, db, SystemClock())
    finally:
        await db.close()


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM."""
    clock = SystemClock()
    tracing = from_settings(settings, "api")
    async with RemoteHost(settings.host_socket, tracing) as host:
        view = await _first_view(host, clock)
        db = Database(database_url(settings))
        vault = await keyring.open_vault(settings, db, clock)
        hosts = Hosts({view.id: host})
        keys = provider_keys(environment())
        mine = home.install_id(settings)
        app = create_app(db, hosts, clock, settings, vault, keys, tracing, mine)
        server = uvicorn.Server(server_config(McpDoor(app, settings.own_url), settings))
        await server.serve()
    tracing.close()
    return 0 if server.started else 1


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How the API is served."""
    return uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        http=connection.Protocol,
        ws=websocket.Protocol,
        ws_max_size=websocket.MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # uvicorn believes whoever is on the loopback; `http.peer` asks the setting
        timeout_keep_alive=_KEEP_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


async def _first_view(host: RemoteHost, clock: SystemClock) -> HostView:
    """Who the host is; both processes start together, so it may take a moment to answer."""
    deadline = clock.monotonic() + _HOST_WITHIN_SECONDS
    while True:
        try:
            return await host.view()
        except Unavailable:
            if clock.monotonic() > deadline:
                raise
            await clock.sleep(_LOOK_EVERY_SECONDS)
