"""Ending what runs have left running in their sandboxes, where no worker is there to do it.

It is noted under the lock of the run, in the transaction that lets go of it, and stays so until it is seen
to have ended, whatever becomes of the run meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from runtools.errors import NotFound, RunToolsError, SandboxStopped
from runtools.platform.api.calls import behalf
from runtools.platform.api.leftovers import store
from runtools.platform.api.leftovers.store import Leftover
from runtools.platform.api.platform import Platform
from runtools.platform.api.runs import log as runs_log
from runtools.platform.api.runs import store as runs
from runtools.platform.api.runs.agent import agent_of
from runtools.platform.api.runs.tables import Record
from runtools.platform.api.sandboxes import inside
from runtools.platform.core.runs import command_of, servers_of
from runtools.platform.kit.db import Transaction

log = logging.getLogger(__name__)

TOPIC = "what runs have left"
_WITHIN_SECONDS = 20.0
_AT_ONCE = 16


# --- noting it ---


def note_commands(conn: Transaction, record: Record, names: Iterable[str]) -> None:
    """Processes of a run may run on in its sandbox."""
    if record.sandbox_id is not None:
        for name in names:
            store.note(conn, Leftover(record.sandbox_id, name, record.org_id, record.id))


def note_servers(conn: Transaction, record: Record) -> None:
    """So may its servers of tools there, if its agent has any: it is let go of.

    Whatever is killed when, they end.
    """
    if record.sandbox_id is None:
        return
    if all(one.command is None for one in agent_of(conn, record).mcp_servers):
        return
    name, lease = servers_of(record.id), record.lease
    store.note(conn, Leftover(record.sandbox_id, name, record.org_id, record.id, lease))


def _open_commands(conn: Transaction, record: Record) -> list[str]:
    """What the commands of its open calls are called in the sandbox."""
    found = (
        command_of(record.id, call.turn, place, call.name, given)
        for call, given, place in runs_log.open_calls(conn, record)
    )
    return [name for name in found if name is not None]


# --- ending it ---


async def end_open(platform: Platform, record: Record) -> None:
    """End what a run has under way that nobody drives: before its end is written, where that can be."""

    def act(conn: Transaction) -> bool:
        held = runs.unmoved(conn, record)
        if held is None:
            return False  # somebody drives it after all
        note_commands(conn, held, _open_commands(conn, held))
        note_servers(conn, held)
        return True

    if await platform.db.write(act):
        await end_of(platform, record)


async def end_of(platform: Platform, record: Record) -> None:
    """End what a run has left, as far as that can be done now."""
    found = await platform.db.read(store.of_run, record)
    await asyncio.gather(*(_end(platform, one) for one in found))


async def end_left(platform: Platform) -> None:
    """One round over all that could not be ended when its run let go of it, or was left by a crash.

    Several at a time: a sandbox that does not answer holds up no other.
    """
    after = ("", "")
    with platform.about(TOPIC):
        while found := await platform.db.read(store.due, after, _AT_ONCE):
            await asyncio.gather(*(_end(platform, one) for one in found))
            after = (found[-1].sandbox_id, found[-1].name)


async def _end(platform: Platform, one: Leftover) -> None:
    """End it, and note that."""
    names = [one.name] if one.lease is None else await _servers(platform, one, one.lease)
    if names is not None and all([await _is_ended(platform, one, name) for name in names]):
        await platform.db.write(store.ended, one)


async def _is_ended(platform: Platform, one: Leftover, process_id: str) -> bool:
    """Whether a process runs no more now; a host that was told ends it, whatever the sandbox does."""
    try:
        async with asyncio.timeout(_WITHIN_SECONDS):
            call = behalf(platform, one.org_id, one.run_id, "")
            host, box = await inside.beside(call, one.sandbox_id)
            await host.end_process(box.id, process_id)
    except (NotFound, SandboxStopped):
        pass  # it is gone with its sandbox
    except (RunToolsError, TimeoutError) as error:
        log.warning("process %s of %s was not ended: %s", process_id, one.sandbox_id, error)
        return False
    return True


async def _servers(platform: Platform, one: Leftover, lease: int) -> list[str] | None:
    """The run's servers of tools that run, but for those of a later lease: somebody speaks with them.

    None: nobody can say. In a sandbox that sleeps none does anything: it is left asleep.
    """
    try:
        async with asyncio.timeout(_WITHIN_SECONDS):
            box = await inside.living(behalf(platform, one.org_id, one.run_id, ""), one.sandbox_id)
            if box.state != "running":
                return None
            found = await platform.hosts.port(box.host_id).list_processes(box.id)
    except (SandboxStopped, NotFound):
        return []
    except (RunToolsError, TimeoutError) as error:
        log.warning(
            "servers of %s in %s cannot be looked for: %s", one.run_id, one.sandbox_id, error
        )
        return None
    return [
        process.id
        for process in found
        if process.id.startswith(one.name)
        and process.state == "running"
        and _lease(process.id) <= lease
    ]


def _lease(server: str) -> int:
    """Under which lease a server was started: its name says so before its last number."""
    return next((int(one) for one in server.split(".")[-2:-1] if one.isdecimal()), 0)
