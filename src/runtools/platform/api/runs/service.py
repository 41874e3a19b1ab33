"""What can be asked of runs: beginning, ending, steering, deciding for and going on with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from runtools.errors import Conflict, NotFound, QuotaExceeded, RunIllegalMove, SandboxStopped
from runtools.platform.api import guard
from runtools.platform.api.calls import Call
from runtools.platform.api.definitions import service as definitions
from runtools.platform.api.definitions import store as standings
from runtools.platform.api.leftovers import service as leftovers
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.models import store as endpoints
from runtools.platform.api.points import reach
from runtools.platform.api.runs import decisions, log, rules, steering, store, telling
from runtools.platform.api.runs.log import New
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.api.runs.telling import QUEUE
from runtools.platform.api.sandboxes.load import load
from runtools.platform.api.threads import store as threads
from runtools.platform.api.threads.tables import Thread
from runtools.platform.core.ids import new_id
from runtools.platform.core.models import choose
from runtools.platform.core.ports.worker import OWN_KEYS
from runtools.platform.core.runs import Status
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.runs import (
    RunApproval,
    RunContinue,
    RunMessage,
    RunRequest,
    RunSteer,
)

Act = Callable[[Transaction, Record, datetime], tuple[Record, list[Event]]]
"""Does something to a run whose row is locked: the run as it is then, and what is new in its log."""
GO_ON = "Go on."
"""What a run that continues another is told where nothing else is said."""


async def create(
    call: Call,
    wanted: RunRequest,
    *,
    thread_id: str | None = None,
    brought: dict[str, Any] | None = None,
) -> Record:
    """A new run, queued; a repeat of the act gets the one that it has made.

    Args:
        thread_id: what its thread is to be called, where it begins one.
        brought: what its front end brings along.

    Raises:
        NotFound: no such agent, thread or sandbox.
        InvalidRequest: nothing has the name of the agent's model, or that refuses what is wanted of it, or
            what was sent is wrong.
        Conflict: the thread is another agent's.
        QuotaExceeded: the org has spent what it may in this month.
    """
    rules.check(wanted)
    return await call.once(store.made_by, partial(_created, call, wanted, thread_id, brought))


async def _created(
    call: Call, wanted: RunRequest, thread_id: str | None, brought: dict[str, Any] | None
) -> Record:
    platform = call.platform
    agent = await definitions.find(call, "agent", wanted.agent_slug, wanted.project)
    said = AgentDefinition.model_validate(agent.says)
    config = wanted.config.model_dump(mode="json", exclude_none=True, by_alias=False)
    await _check_model(call, said, config)
    if wanted.output_schema is not None:
        await platform.schemas.check({"outputSchema": wanted.output_schema})
    sandbox = None if wanted.sandbox_id is None else await _sandbox(call, wanted.sandbox_id)
    messages = wanted.messages or [
        RunMessage(role="user", content=wanted.message or "", images=wanted.images)
    ]
    now = platform.clock.now()
    record = Record(
        id=new_id("run"),
        org_id=call.org,
        project_id=agent.project_id,
        thread_id=wanted.thread_id or thread_id or new_id("thr"),
        agent_id=agent.id,
        version_id=agent.version_id,
        agent_slug=agent.slug,
        agent_version=agent.version,
        model=said.model,
        actor=call.actor,
        op=call.op,
        created_at=now,
        queued_at=now,
        config=config,
        output_schema=wanted.output_schema,
        metadata=wanted.metadata,
        has_front=brought is not None,
        wanted_sandbox=sandbox,
        lane=await _lane(call, said, agent.project_id, sandbox),
    )
    usual = standard(platform.settings)
    known = wanted.thread_id is not None
    record = await call.made(_create, record, messages, known, usual, brought)
    reach("api.run.written")
    platform.bus.signal(QUEUE)
    return record


async def get(call: Call, run_id: str) -> Record:
    """One of the org's."""
    return _found(await call.platform.db.read(store.find, call.org, run_id[:80]), run_id)


async def until(call: Call, run_id: str, seconds: float) -> Record:
    """A run once it has ended or waits for somebody, or as it is when the time is up."""
    platform = call.platform
    deadline = platform.clock.monotonic() + seconds
    with platform.bus.watching(run_id) as watch:
        while True:
            record = await get(call, run_id)
            left = deadline - platform.clock.monotonic()
            if store.is_over(record) or record.status == Status.WAITING or left <= 0:
                return record
            await watch.wait(left)


async def cancel(call: Call, run_id: str) -> Record:
    """End a run: at once where nobody drives it, else by who does. One that has ended stays as it is."""

    def act(conn: Transaction, record: Record, now: datetime) -> tuple[Record, list[Event]]:
        if store.is_over(record):
            return record, []
        if record.status == Status.WAITING or record.started_at is None:
            leftovers.note_servers(conn, record)
            grown = log.drop(conn, record, Status.CANCELLED, now, standard(platform.settings))
            return grown.record, grown.fresh
        store.change(conn, record, {"cancel_requested": True})
        return replace(record, cancel_requested=True), []

    platform = call.platform
    record = await under_lock(call, run_id, act, says=False)
    if store.is_over(record):
        platform.spawn(leftovers.end_of(platform, record), f"what {record.id} has left")
    return record


async def approve(call: Call, run_id: str, wanted: RunApproval) -> Record:
    """Decide on a call that waits for a person.

    Raises:
        NotFound: no call of that id waits, or ever has.
        AlreadyDecided: it was decided on otherwise.
        Conflict: it has its result already.
        RunEnded: the run is over.
    """

    def act(conn: Transaction, record: Record, now: datetime) -> tuple[Record, list[Event]]:
        return decisions.decide(conn, record, wanted, who, now, usual)

    who, usual = call.actor, standard(call.platform.settings)
    return await under_lock(call, run_id, act)


async def steer(call: Call, run_id: str, wanted: RunSteer) -> Record:
    """Say something to a run that is under way.

    Raises:
        RunEnded: it is over; its thread goes on with another run.
    """
    rules.check_images(wanted.images, "images")

    def act(conn: Transaction, record: Record, now: datetime) -> tuple[Record, list[Event]]:
        return steering.say(conn, record, [wanted], op, now, usual)

    op, usual = call.op, standard(call.platform.settings)
    return await under_lock(call, run_id, act)


async def continue_(call: Call, run_id: str, wanted: RunContinue) -> Record:
    """A new run that goes on from where a limit stopped one.

    Raises:
        RunIllegalMove: it was not stopped by a limit.
        InvalidRequest: nothing has the name of its model any more, or that refuses what is wanted of it.
        Conflict: another run goes on from it already.
        Forbidden: it worked in a sandbox that was named for it, and the caller may not.
    """
    return await call.once(store.made_by, partial(_continued, call, run_id, wanted))


async def _continued(call: Call, run_id: str, wanted: RunContinue) -> Record:
    platform = call.platform
    old = await get(call, run_id)
    if old.wanted_sandbox is not None:
        guard.check_scope(call.who, "sandbox:write")
    config = rules.config_over(old.config, wanted.config)
    made = await platform.db.read(standings.version, old.org_id, old.agent_id, old.version_id)
    assert made is not None  # noqa: S101 - versions outlive what they are versions of
    await _check_model(call, AgentDefinition.model_validate(made.says), config)
    now = platform.clock.now()
    record = Record(
        id=new_id("run"),
        org_id=old.org_id,
        project_id=old.project_id,
        thread_id=old.thread_id,
        agent_id=old.agent_id,
        version_id=old.version_id,
        agent_slug=old.agent_slug,
        agent_version=old.agent_version,
        model=old.model,
        actor=call.actor,
        op=call.op,
        created_at=now,
        queued_at=now,
        continues=old.id,
        config=config,
        output_schema=old.output_schema,
        metadata=old.metadata,
        has_front=old.has_front,
        wanted_sandbox=old.wanted_sandbox,
        lane=old.lane,
    )
    messages = [RunMessage(role="user", content=wanted.message or GO_ON)]
    usual = standard(platform.settings)
    record = await call.made(_continue, old, record, messages, usual)
    platform.bus.signal(QUEUE)
    return record


async def under_lock(call: Call, run_id: str, act: Act, *, says: bool = True) -> Record:
    """Do something to a run under its lock, then tell whoever waits for it.

    Who says what it does in a sandbox that was named for it must be one who may work there.
    """
    platform = call.platform

    def locked(conn: Transaction) -> tuple[Record, list[Event]]:
        record = _found(store.locked(conn, call.org, run_id[:80]), run_id)
        if says and record.wanted_sandbox is not None:
            guard.check_scope(call.who, "sandbox:write")
        call.subject = record.id
        return act(conn, record, platform.clock.now())

    record, fresh = await platform.db.write(locked)
    telling.told(platform, record, fresh)
    platform.workers.poke(record.id)
    return record


# --- means ---


def _create(
    conn: Transaction,
    record: Record,
    messages: Sequence[RunMessage],
    known: bool,
    usual: Amounts,
    brought: dict[str, Any] | None,
) -> Record:
    record = _admit(conn, record, usual)
    if not known:
        title = rules.title_of(messages[-1].content)
        thread = Thread(
            id=record.thread_id,
            org_id=record.org_id,
            project_id=record.project_id,
            agent_id=record.agent_id,
            agent_slug=record.agent_slug,
            title=title,
            created_at=record.created_at,
            updated_at=record.created_at,
        )
        known = not threads.add(conn, thread)
    if known:
        _join(conn, record)
    return _begin(conn, record, messages, usual, brought)


def _join(conn: Transaction, record: Record) -> None:
    thread = threads.locked(conn, record.org_id, record.thread_id)
    if thread is None:
        raise NotFound(
            f"no thread {record.thread_id!r}",
            hint="GET /v1/threads lists them",
            details={"field": "threadId"},
        )
    if thread.agent_id != record.agent_id:
        raise Conflict(
            f"thread {thread.id} is a conversation with {thread.agent_slug}",
            hint="each agent has threads of its own: leave threadId out to begin one",
            details={"agent": thread.agent_slug},
        )
    threads.touch(conn, thread, record.created_at)


def _begin(
    conn: Transaction,
    record: Record,
    messages: Sequence[RunMessage],
    usual: Amounts,
    brought: dict[str, Any] | None,
) -> Record:
    store.add(conn, record, brought)
    started = {
        "agent_slug": record.agent_slug,
        "agent_version": record.agent_version,
        "model": record.model,
        "thread_id": record.thread_id,
    }
    events = [New(f"{OWN_KEYS}started", "run-started", started)]
    for n, message in enumerate(messages):
        data = message.model_dump(mode="json", by_alias=False)
        said = {"role": message.role, "text": message.content, "images": data["images"], "turn": 0}
        events.append(New(f"{OWN_KEYS}input:{n}", "message", said))
    return log.append(conn, record, events, record.created_at, usual).record


def _continue(
    conn: Transaction,
    old: Record,
    record: Record,
    messages: Sequence[RunMessage],
    usual: Amounts,
) -> Record:
    record = _admit(conn, record, usual)
    _join(conn, record)
    now = _found(store.locked(conn, old.org_id, old.id), old.id)
    if now.status != Status.LIMIT_REACHED:
        raise RunIllegalMove(
            f"{old.id} was not stopped by a limit: it is {now.status}",
            hint="its thread goes on with another run: pass its threadId to POST /v1/run",
            details={"status": now.status},
        )
    if store.continued(conn, old):
        raise Conflict(
            f"another run goes on from {old.id} already",
            hint=f"GET /v1/runs?threadId={old.thread_id} shows it",
        )
    return _begin(conn, record, messages, usual, store.brought(conn, old))


def _admit(conn: Transaction, record: Record, usual: Amounts) -> Record:
    """The run, in the project where its agent is by now, if the org may spend more."""
    project = standings.project_of(conn, record.org_id, record.agent_id)
    over = log.over_budget(conn, record.org_id, record.created_at, usual)
    if over is not None:
        raise QuotaExceeded(
            over,
            hint="the month ends, or the operator allows more: runtools org limits shows it",
        )
    return replace(record, project_id=project or record.project_id)


async def _check_model(call: Call, agent: AgentDefinition, config: dict[str, object]) -> None:
    slugs = [one.slug for one in await call.platform.db.read(endpoints.all_of, call.org)]
    rules.check_sampling(choose(agent.model, slugs), agent, config)


async def _sandbox(call: Call, ref: str) -> str:
    """The sandbox that a run is to work in: who asks for it may work in it."""
    guard.check_scope(call.who, "sandbox:write")
    record = await load(call.platform, call.org, ref)
    if record.state == "stopped":
        raise SandboxStopped(
            f"{record.id} has stopped", hint=f"runtools sandbox why {record.id} tells what ended it"
        )
    return record.id


async def _lane(
    call: Call, agent: AgentDefinition, project_id: str, sandbox: str | None
) -> str | None:
    """What runs share and take turns in: a sandbox that is not their thread's alone.

    For one that stands for a definition it is that definition: another may come to stand for it meanwhile.
    """
    if agent.side_by_side:
        return None
    if sandbox is not None:
        standing = await call.platform.db.read(standings.stands_for, call.org, sandbox)
        return standing or sandbox
    if agent.sandbox is None or agent.sandbox_mode != "shared":
        return None
    return (await definitions.find(call, "sandbox", agent.sandbox, project_id)).id


def _found(record: Record | None, run_id: str) -> Record:
    if record is None:
        raise NotFound(f"no run {run_id[:80]!r}", hint="GET /v1/runs lists them")
    return record
