"""Giving a run to a worker: under which lease, with what it must know, and what it may spend."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from runtools.errors import (
    NotFound,
    RunAbandoned,
    RunToolsError,
    TooLarge,
    Unavailable,
    WrongMasterKey,
)
from runtools.platform.api.callers.door import RUN_PREFIX
from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.leftovers import service as leftovers
from runtools.platform.api.limits import store as limits
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.logs import store as logs
from runtools.platform.api.logs.store import Place
from runtools.platform.api.models.access import access
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.api.runs import log, look, rules, store
from runtools.platform.api.runs.agent import agent_of
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.api.runs.telling import told
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.threads import store as threads
from runtools.platform.api.workers import service
from runtools.platform.api.workers.desktops import has_desktop
from runtools.platform.core import runs as states
from runtools.platform.core import spending
from runtools.platform.core.ports.worker import EARLIER, Assignment, ModelAccess, Take
from runtools.platform.core.runs import Move, Status
from runtools.platform.kit import crypto
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.frontends import Brought
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.runs import PAYLOADS, RunConfig, RunUsage

MAX_CONVERSATION_BYTES = 128 * 1024 * 1024
"""What a worker is given to hold of a conversation, from its last compaction on."""
MOST_TAKEOVERS = 8
"""How often a run is taken over or given back with nothing new in its log: that is the run's own doing."""
_ALL = tuple(PAYLOADS)


async def take(platform: Platform, worker_id: str, asked: Take) -> Assignment:
    """Give a run to a worker that was offered it.

    A run whose model cannot be asked is ended here, with the reason.

    Raises:
        Conflict: the lease is not the latest, or it is another run's turn.
        NotFound: there is no such run.
        TooLarge: its conversation is more than a worker can be given; it has been ended.
        RunAbandoned: no worker comes any further with it; it has been ended.
    """
    record = await platform.db.read(store.known, asked.run_id)
    if record is None:
        raise NotFound(f"no run {asked.run_id[:80]!r}")
    try:
        _check_takeovers(record)
        model = await access(platform, record.org_id, record.model)
    except RunToolsError as error:
        # A key that does not open stays so; whatever else is out of reach comes back.
        if isinstance(error, WrongMasterKey) or not isinstance(error, Unavailable):
            await _give_up(platform, worker_id, asked, error)
        raise
    token = crypto.new_secret(RUN_PREFIX)
    digest, now = crypto.digest(token), platform.clock.now()
    taken = await platform.db.write(_take, worker_id, asked, record, digest, now)
    reach("api.run.taken")
    if model.api_key is not None and model.key_name is not None:
        await service.tell(platform, taken, model.key_name)
    usual, default = standard(platform.settings), platform.settings.default_template
    try:
        return await platform.db.read(_assignment, taken, model, token, usual, now, default)
    except TooLarge as error:
        await _give_up(platform, worker_id, asked, error)
        raise


def _take(
    conn: Transaction, worker_id: str, asked: Take, seen: Record, digest: str, now: datetime
) -> Record:
    # What runs take turns in is locked first, so that of two that go at once one sees the other.
    threads.locked(conn, seen.org_id, seen.thread_id)
    if seen.lane is not None and not definitions.lock(conn, seen.org_id, seen.lane):
        sandboxes.locked(conn, seen.lane)
    record = store.held(conn, asked.run_id)
    if record is None or record.lease != asked.lease:
        raise service.stale(asked.run_id, asked.lease)
    again = record.status == Status.RUNNING and record.worker_id == worker_id
    if not again:
        if record.status != Status.QUEUED or not store.is_next(conn, record):
            raise service.stale(asked.run_id, asked.lease)
        states.check(Move.TAKE, record.status, record.id)
    taken = replace(
        record,
        status=Status.RUNNING,
        worker_id=worker_id,
        token_digest=digest,
        started_at=record.started_at or now,
        taken_at=record.taken_at if again else now,
    )
    names = ("status", "worker_id", "token_digest", "started_at", "taken_at")
    store.change(conn, record, {name: getattr(taken, name) for name in names})
    return taken


def _assignment(
    conn: Transaction,
    record: Record,
    model: ModelAccess,
    token: str,
    usual: Amounts,
    now: datetime,
    default_template: str,
) -> Assignment:
    agent = agent_of(conn, record)
    config = RunConfig.model_validate(record.config)
    begin = _begin(conn, record)
    size = logs.weight(conn, record, _ALL, begin)
    if size > MAX_CONVERSATION_BYTES:
        raise TooLarge(
            f"the conversation of {record.id} has {size} bytes; one may have {MAX_CONVERSATION_BYTES}",
            hint="begin another thread",
            details={"limitBytes": MAX_CONVERSATION_BYTES},
        )
    org_id, thread_id = record.org_id, record.thread_id
    earlier = logs.of_thread(conn, org_id, thread_id, EARLIER, begin, record)
    log_, more = logs.events(conn, org_id, record.id, 0)
    return Assignment(
        run=look.shape(record),
        agent=agent,
        model=model,
        output_schema=record.output_schema,
        limits=_limits(conn, record, agent, config, usual, now),
        spent_seconds=record.active_ms / 1000,
        driven_to=record.driven_to,
        config=config.model_dump(mode="json", exclude_none=True, by_alias=False),
        earlier=look.logged(earlier.events),
        log=look.logged(log_),
        earlier_goes_on=earlier.more,
        log_goes_on=more,
        has_desktop=has_desktop(conn, record, agent, default_template),
        brought=Brought.model_validate(store.brought(conn, record) or {}),
        token=token,
    )


def _check_takeovers(record: Record) -> None:
    if record.takeovers > MOST_TAKEOVERS and not record.cancel_requested:
        raise RunAbandoned(
            f"{record.id} was taken over or given back {record.takeovers} times and came no further",
            hint="the logs of the workers say why; what it does may be too much for them",
            details={"takeovers": record.takeovers},
        )


def _limits(
    conn: Transaction,
    record: Record,
    agent: AgentDefinition,
    config: RunConfig,
    usual: Amounts,
    now: datetime,
) -> dict[str, float]:
    """What the run may spend in all, by agent, run and what is left to the org in this month."""
    allowed = limits.limits(conn, record.org_id, usual)
    tokens, nano = store.spent(conn, record.org_id, rules.month(now))
    used = RunUsage.model_validate(record.usage)
    most_tokens = None
    if allowed.agent_tokens:
        most_tokens = max(0, allowed.agent_tokens - tokens) + spending.tokens(used)
    most_usd = None
    if allowed.agent_cents:
        left = Decimal(allowed.agent_cents) / 100 - Decimal(nano) / rules.NANO
        most_usd = max(Decimal(0), left) + rules.usd(used.cost_usd)
    return rules.budget(agent, config, most_tokens, most_usd)


def _begin(conn: Transaction, record: Record) -> Place | None:
    """After what there is that no summary stands for: what came while it was made, and all since."""
    found = logs.last_of(conn, record, "compaction")
    if found is None:
        return None
    summary, place = found
    seen = json.loads(summary.wire or "{}").get("seen")
    return replace(place, seq=summary.seq - 1 if seen is None else int(seen))


async def _give_up(platform: Platform, worker_id: str, asked: Take, error: RunToolsError) -> None:
    """End a run that nobody can drive, and what an earlier worker has left running."""
    seen = await platform.db.read(store.known, asked.run_id)
    if seen is None or seen.lease != asked.lease:
        return
    if seen.status != Status.QUEUED and (seen.status, seen.worker_id) != (
        Status.RUNNING,
        worker_id,
    ):
        return  # it is over, or waits, or is another's
    await leftovers.end_open(platform, seen)
    usual, now = standard(platform.settings), platform.clock.now()

    def act(conn: Transaction) -> tuple[Record, list[Event]] | None:
        record = store.unmoved(conn, seen)
        if record is None:
            return None  # somebody drives it after all
        grown = log.drop(conn, record, Status.FAILED, now, usual, error)
        return grown.record, grown.fresh

    done = await platform.db.write(act)
    if done is not None:
        told(platform, *done)
