"""Where a run works: the sandbox that was asked for, the agent's standing one, or one of the thread's own.

What is made for a thread is made by an act whose id comes from the thread, so that a crash in between, and
a run that is taken over, find what is there already.
"""

from __future__ import annotations

from runtools.errors import NotFound, RunToolsError, SandboxStopped
from runtools.platform.api.calls import Call, behalf
from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.api.runs import store as runs
from runtools.platform.api.runs.agent import agent_of
from runtools.platform.api.runs.tables import Record
from runtools.platform.api.sandboxes import births
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.threads import store as threads
from runtools.platform.api.threads.tables import Thread
from runtools.platform.api.workers import service
from runtools.platform.core.ports.worker import Place, Placed
from runtools.platform.kit.crypto import keyed_digest
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.sandboxes import SandboxCreate, SandboxFork


async def place(platform: Platform, worker_id: str, asked: Place) -> Placed:
    """The sandbox of a run, made where there is none yet.

    Raises:
        Conflict: the lease is not the latest.
        SandboxStopped: the sandbox that was asked for has ended.
        NotFound: the agent's sandbox is deployed no more.
        RunToolsError: none can be made: for want of room, or of a template.
    """
    record = await service.held(platform, worker_id, asked.run_id, asked.lease)
    agent = await platform.db.read(agent_of, record)
    sandbox_id = await _sandbox(platform, record, agent)
    reach("api.run.placed")
    replaced = await platform.db.write(_placed, record, sandbox_id)
    if record.token_digest is not None:
        platform.door.forget(record.token_digest)  # from now on it opens this sandbox
    return Placed(sandbox_id=sandbox_id, replaced=replaced)


async def _sandbox(platform: Platform, record: Record, agent: AgentDefinition) -> str:
    if record.wanted_sandbox is not None:
        if not await _lives(platform, record.org_id, record.wanted_sandbox):
            raise SandboxStopped(
                f"{record.wanted_sandbox}, in which {record.id} was to work, has stopped",
                hint=f"runtools sandbox why {record.wanted_sandbox} tells what ended it",
            )
        return record.wanted_sandbox
    thread = await platform.db.read(threads.find, record.org_id, record.thread_id)
    assert thread is not None  # noqa: S101 - none with a run under way is deleted
    if agent.sandbox is None:
        return await _of_thread(platform, record, thread, None)
    standing = await _standing(platform, record, agent.sandbox)
    if agent.sandbox_mode == "shared":
        return standing
    return await _of_thread(platform, record, thread, standing)


async def _standing(platform: Platform, record: Record, slug: str) -> str:
    found = await platform.db.read(
        definitions.find, record.org_id, "sandbox", slug, record.project_id
    )
    if not found or found[0].sandbox_id is None:
        raise NotFound(
            f"the sandbox {slug} of agent {record.agent_slug} is deployed no more",
            hint="deploy the project again",
        )
    return found[0].sandbox_id


async def _of_thread(platform: Platform, record: Record, thread: Thread, parent: str | None) -> str:
    """The sandbox that was made for the thread, while it lives; else another one."""
    if thread.sandbox_id is not None and await _lives(platform, record.org_id, thread.sandbox_id):
        return thread.sandbox_id
    op = f"opn_{keyed_digest(thread.id, str(thread.places).encode())[:32]}"
    call = behalf(platform, record.org_id, record.id, op)
    try:
        made = await _make(call, record, thread, parent)
    except RunToolsError:
        await _pass_over(platform, record.org_id, op, thread)
        raise
    await platform.db.write(_settle, record, thread, made)
    return made


async def _make(call: Call, record: Record, thread: Thread, parent: str | None) -> str:
    tags = {"thread": thread.id, "agent": record.agent_slug}
    if parent is not None:
        [child], _ = await births.fork(call, parent, SandboxFork(tags=tags))
        return child.id
    wanted = SandboxCreate(tags=tags, project_id=record.project_id)
    return (await births.create(call, wanted)).id


async def _pass_over(platform: Platform, org_id: str, op: str, thread: Thread) -> None:
    """What was born dead is not found again: the next try makes another."""
    made = await platform.db.read(sandboxes.born_by, org_id, op)
    if made and all(one.state == "stopped" for one in made):
        await platform.db.write(threads.settle, thread, made[0].id)


async def _lives(platform: Platform, org_id: str, sandbox_id: str) -> bool:
    found = await platform.db.read(sandboxes.by_id, org_id, sandbox_id)
    return found is not None and "stopped" not in (found.state, found.wanted)


def _settle(conn: Transaction, record: Record, thread: Thread, made: str) -> None:
    """The thread has this sandbox from now on; that it had another, its run remembers."""
    threads.settle(conn, thread, made)
    now = runs.held(conn, record.id)
    if thread.sandbox_id is not None and now is not None and now.lease == record.lease:
        runs.change(conn, now, {"replaced_at": now.last_seq})


def _placed(conn: Transaction, record: Record, sandbox_id: str) -> bool:
    """The run works there; returns whether its model takes it for another one still."""
    now = runs.held(conn, record.id)
    if now is None or now.lease != record.lease:
        return False
    if now.sandbox_id != sandbox_id:
        runs.change(conn, now, {"sandbox_id": sandbox_id})
    since = now.replaced_at
    return since is not None and not runs.of_types(conn, now, ("tool-result",), since)
