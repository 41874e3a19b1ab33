"""Ending what a run has left running in its sandbox, where no worker is there to do it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from runtools.errors import NotFound, RunToolsError, SandboxStopped
from runtools.platform.api.calls import behalf
from runtools.platform.api.platform import Platform
from runtools.platform.api.runs import log as runs_log
from runtools.platform.api.runs import store as runs
from runtools.platform.api.runs.tables import Record
from runtools.platform.api.sandboxes import inside
from runtools.platform.core.runs import process_of, servers_of
from runtools.platform.kit.db import Transaction

log = logging.getLogger(__name__)

TOPIC = "servers of tools that were left"
_WITHIN_SECONDS = 20.0
_AT_ONCE = 16


async def end_commands(platform: Platform, record: Record) -> None:
    """End the commands of its open calls, and its servers; what of the commands cannot be ended now stays
    written down, for `end_left`.
    """
    if record.sandbox_id is None:
        return
    await _end_owed(platform, await platform.db.write(_owing, record), record.sandbox_id)
    servers = await _servers(platform, record, record.sandbox_id, record.lease) or []
    await _end_all(platform, record, record.sandbox_id, servers)


async def end_servers(platform: Platform, record: Record) -> None:
    """End its servers of tools when it has ended or rests, and the commands that it has left: its worker
    may do nothing there any more.

    Until that is done it stays written down, for `end_left`.
    """
    if record.sandbox_id is None:
        return
    await _end_owed(platform, record, record.sandbox_id)
    lease = record.lease if record.servers_left is None else record.servers_left
    names = await _servers(platform, record, record.sandbox_id, lease)
    if names is None or not await _end_all(platform, record, record.sandbox_id, names):
        return
    if record.servers_left is not None:
        await platform.db.write(runs.servers_ended, record.id, lease)


async def end_left(platform: Platform) -> None:
    """One round over all that could not be ended when its run let go of it, or was left by a crash.

    Several sandboxes at a time: one that does not answer holds up no other.
    """
    after = ""
    with platform.about(TOPIC):
        while found := await platform.db.read(runs.with_servers, after, _AT_ONCE):
            await asyncio.gather(*(end_servers(platform, record) for record in found))
            after = found[-1].id


async def _end_owed(platform: Platform, record: Record, sandbox_id: str) -> None:
    """End the commands that it has left; a host that was told ends them, whatever the sandbox does."""
    if record.commands_left and await _end_all(platform, record, sandbox_id, record.commands_left):
        await platform.db.write(runs.commands_ended, record.id)


async def _end_all(
    platform: Platform, record: Record, sandbox_id: str, names: Sequence[str]
) -> bool:
    """Whether none of them runs any more."""
    done = True
    for name in names:
        try:
            async with asyncio.timeout(_WITHIN_SECONDS):
                await _end(platform, record, sandbox_id, name)
        except (NotFound, SandboxStopped):
            continue
        except (RunToolsError, TimeoutError) as error:
            log.warning("command %s of %s was not ended: %s", name, sandbox_id, error)
            done = False
    return done


async def _end(platform: Platform, record: Record, sandbox_id: str, name: str) -> None:
    host, box = await inside.beside(behalf(platform, record.org_id, record.id, ""), sandbox_id)
    await host.end_process(box.id, name)


async def _servers(
    platform: Platform, record: Record, sandbox_id: str, lease: int
) -> list[str] | None:
    """Its servers of tools that run, but for those of a later lease: somebody speaks with them.

    None: nobody can say. In a sandbox that sleeps none does anything: it is left asleep.
    """
    try:
        box = await inside.living(behalf(platform, record.org_id, record.id, ""), sandbox_id)
        if box.state != "running":
            return None
        async with asyncio.timeout(_WITHIN_SECONDS):
            found = await platform.hosts.port(box.host_id).list_processes(box.id)
    except (SandboxStopped, NotFound):
        return []
    except (RunToolsError, TimeoutError) as error:
        log.warning("servers of %s in %s cannot be looked for: %s", record.id, sandbox_id, error)
        return None
    begins = servers_of(record.id)
    return [
        one.id
        for one in found
        if one.id.startswith(begins) and one.state == "running" and _lease(one.id) <= lease
    ]


def _lease(server: str) -> int:
    """Under which lease a server was started: its name says so before its last number."""
    return next((int(one) for one in server.split(".")[-2:-1] if one.isdecimal()), 0)


def _owing(conn: Transaction, record: Record) -> Record:
    held = runs.held(conn, record.id)
    if held is None:
        return record
    return owing(conn, record, commands(conn, held))


def owing(conn: Transaction, record: Record, left: list[str]) -> Record:
    """A run with a note of the commands that it may leave running, if there are any."""
    if not left or record.sandbox_id is None:
        return record
    runs.change(conn, record, {"commands_left": left})
    return replace(record, commands_left=left)


def commands(conn: Transaction, record: Record) -> list[str]:
    """What the commands of open calls are called in the sandbox; those that came back to one have none."""
    return [
        process_of(record.id, call.turn, place)
        for call, place in runs_log.open_calls(conn, record)
        if call.name == "bash" and "process_id" not in call.arguments
    ]
