"""A whole platform whose machines are local processes: real api, host service, socket and guest agent."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.schema import upgrade
from runtools.platform.boot import parts
from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.gateway.reach import HostReach
from runtools.platform.gateway.web.asking import Api
from runtools.platform.gateway.web.house import House
from runtools.platform.gateway.web.server import listening
from runtools.platform.host.entrance import entrance
from runtools.platform.host.server import serving
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.local_host import local_host
from runtools.testing.made_once import sqlite_url

_BUILD_SECONDS = 60


@asynccontextmanager
async def local_platform(
    folder: Path, *, database: str | None = None, **said: Any
) -> AsyncIterator[tuple[str, str]]:
    """A platform with a template that is ready: its URL and the first key. Sandboxes end with it.

    Args:
        folder: its home.
        database: the URL of one with the schema in it, or an empty one; default: SQLite in the folder.
        said: settings.
    """
    ports = {"gateway_port": _free_port()}
    settings = Settings(home=folder, disk_headroom_mb=1, **ports | said)
    clock, db = SystemClock(), Database(database or sqlite_url(folder))
    await upgrade(db)
    _, key = await ensure_first(db, clock)
    assert key is not None
    at = folder / "host.sock"
    host = local_host(settings)
    await host.start()
    async with (
        serving(host, at),
        RemoteHost(at) as remote,
        api_world.serving(db, {api_world.HOST_ID: remote}, clock, settings) as (url, _),
        api_world.client(url, key) as http,
        entrance(host.entering, settings.reach_socket),
        _gateway(settings, url),
    ):
        answer = await http.post("/v1/templates/base-debian/builds", json={})
        assert answer.status_code == 201, answer.text
        await api_world.holds(lambda: _is_built(http), _BUILD_SECONDS)
        yield url, key
        for state in ("running", "paused", "creating"):
            found = await http.get(f"/v1/sandboxes?state={state}")
            for sandbox in found.json()["data"]:
                await http.delete(f"/v1/sandboxes/{sandbox['id']}")
    await host.stop()


@asynccontextmanager
async def _gateway(settings: Settings, api_url: str) -> AsyncIterator[None]:
    async with Api(api_url, parts.token(settings, "gateway")) as api:
        urls, reach = DevUrls.of(settings.dev_url_base), HostReach(settings.reach_socket)
        house = House(urls, api, reach, SystemClock(), sign_in=f"{api_url}/open")
        async with listening(house, settings.gateway_host, settings.gateway_port):
            yield


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def _is_built(http: httpx.AsyncClient) -> bool:
    answer = await http.get("/v1/templates/base-debian")
    return bool(answer.json()["data"]["state"] == "ready")
