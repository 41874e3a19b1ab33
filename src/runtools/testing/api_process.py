"""The api as a process of its own over a host's socket, to be killed; made on demand, see `forks`.

An order names a folder (database, first key, ``url`` once it serves), the host's socket and a crash point.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.schema import upgrade
from runtools.platform.kit import log
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.crash import arm
from runtools.platform.kit.db import Database
from runtools.testing.api_world import HOST_ID, rules, serving
from runtools.testing.forks import make_on_demand
from runtools.testing.made_once import sqlite_url


async def main(folder: Path, host_socket: Path, point: str) -> None:
    """Serve until killed."""
    log.configure("api")
    clock, db = SystemClock(), Database(sqlite_url(folder))
    await upgrade(db)
    _, key = await ensure_first(db, clock)
    if key is not None:
        (folder / "key").write_text(key)
    arm(point)
    async with (
        RemoteHost(host_socket) as host,
        serving(db, {HOST_ID: host}, clock, Settings(home=folder)) as (url, _),
    ):
        (folder / "url.new").write_text(url)
        (folder / "url.new").rename(folder / "url")
        await asyncio.Event().wait()


def _forked(order: dict[str, Any]) -> None:
    asyncio.run(main(Path(order["folder"]), Path(order["host"]), order["point"]))


if __name__ == "__main__":
    rules()  # made before there are forks, for all of them
    make_on_demand(_forked)
