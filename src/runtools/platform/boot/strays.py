"""``runtools strays``: what becomes of sandboxes that no record bears. For who owns the machine alone."""

from __future__ import annotations

from typing import Final

from runtools.errors import InvalidRequest
from runtools.platform.api import schema
from runtools.platform.api.hosts import strays
from runtools.platform.api.hosts.registry import Hosts
from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.boot import keyring
from runtools.platform.boot.api import database_url
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import Host
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database

_ACTOR: Final = "operator"


async def serve(settings: Settings, act: str, sandbox_id: str | None, org_id: str | None) -> int:
    """Do one act, beside the running platform, as the user that owns its database."""
    db = Database(database_url(settings))
    try:
        await schema.check(db)
        async with RemoteHost(settings.host_socket) as host:
            if act == "list":
                return await _list(db, host)
            if sandbox_id is None:
                raise InvalidRequest(
                    f"strays {act} needs a sandbox's id", hint="runtools strays lists them"
                )
            if act == "adopt":
                return await _adopt(settings, db, host, sandbox_id, org_id)
            await strays.find(db, host, sandbox_id)
            await host.destroy(sandbox_id, new_id("opn"), _ACTOR)
            print(f"{sandbox_id} is destroyed")
            return 0
    finally:
        await db.close()


async def _list(db: Database, host: Host) -> int:
    for seen in await strays.those(db, host):
        order = await host.order(seen.sandbox_id)
        print(
            f"{seen.sandbox_id}  {seen.state}  since {seen.at:%Y-%m-%d %H:%M:%S} UTC"
            f"  {order.template_version_id}  created by {order.actor}"
        )
    return 0


async def _adopt(
    settings: Settings, db: Database, host: Host, sandbox_id: str, org_id: str | None
) -> int:
    clock = SystemClock()
    vault = await keyring.open_vault(settings, db, clock)
    hosts = Hosts({(await host.view()).id: host})
    record = await strays.adopt(db, vault, hosts, sandbox_id, org_id, clock.now())
    print(f"{record.id} is {record.state}, in {record.org_id}")
    return 0
