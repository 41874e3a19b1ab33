"""What workers ask, under a run's lease: taking it, growing and reading its log, its secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from runtools.errors import (
    Conflict,
    Forbidden,
    NotFound,
    RunToolsError,
    TooLarge,
    Unavailable,
)
from runtools.platform.api.audit import store as audit
from runtools.platform.api.audit.store import Line
from runtools.platform.api.callers.door import RUN_PREFIX
from runtools.platform.api.definitions import store as definitions
from runtools.platform.api.limits import store as limits
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.models import keys
from runtools.platform.api.models.access import access
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.api.runs import log, look, rules, store
from runtools.platform.api.runs.log import New
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.api.runs.telling import told
from runtools.platform.api.sandboxes import store as sandboxes
from runtools.platform.api.secrets import store as secrets
from runtools.platform.api.threads import store as threads
from runtools.platform.api.workers import leftovers
from runtools.platform.core import runs as states
from runtools.platform.core.ids import new_id
from runtools.platform.core.models import SEARCH_KEY
from runtools.platform.core.ports.worker import (
    MAX_FRAME_BYTES,
    OWN_KEYS,
    Append,
    Assignment,
    ModelAccess,
    News,
    Read,
    Release,
    Secret,
    Take,
    Value,
)
from runtools.platform.core.runs import Move, Status
from runtools.platform.kit import crypto, http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.limits import Amounts
from runtools.sdk.shapes.runs import RunConfig, RunUsage

_EARLIER = ("message", "tool-call", "tool-result", "approval-resolved", "compaction")
_WHOLE_LOG = 1_000_000
MAX_CONVERSATION_BYTES = MAX_FRAME_BYTES // 2  # as text; in bytes it may be more
_AGENTS = frozenset({"all", "agents"})
_TOOL = "tool"
_SECOND = timedelta(seconds=1)


# --- taking ---


async def take(platform: Platform, worker_id: str, asked: Take) -> Assignment:
    """Give a run to a worker that was offered it.

    A run whose model cannot be asked is ended here, with the reason.

    Raises:
        Conflict: the lease is not the latest, or it is another run's turn.
        NotFound: there is no such run.
        TooLarge: its conversation is more than a worker can be given; it has been ended.
    """
    record = await platform.db.read(store.known, asked.run_id)
    if record is None:
        raise NotFound(f"no run {asked.run_id[:80]!r}")
    try:
        model = await access(platform, record.org_id, record.model)
    except Unavailable:
        raise
    except RunToolsError as error:
        await _give_up(platform, asked, error)
        raise
    token = crypto.new_secret(RUN_PREFIX)
    digest, now = crypto.digest(token), platform.clock.now()
    taken = await platform.db.write(_take, worker_id, asked, record, digest, now)
    reach("api.run.taken")
    platform.bus.signal(taken.id)
    if model.api_key is not None and model.key_name is not None:
        await _tell(platform, taken, model.key_name)
    usual = standard(platform.settings)
    try:
        return await platform.db.read(_assignment, taken, model, token, usual, now)
    except TooLarge as error:
        await _give_up(platform, asked, error)
        raise


def _take(
    conn: Transaction, worker_id: str, asked: Take, seen: Record, digest: str, now: datetime
) -> Record:
    # What runs take turns in is locked first, so that of two that go at once one sees the other.
    threads.locked(conn, seen.org_id, seen.thread_id)
    if seen.lane is not None:
        sandboxes.locked(conn, seen.lane)
    record = store.held(conn, asked.run_id)
    if record is None or record.lease != asked.lease:
        raise _stale(asked.run_id, asked.lease)
    again = record.status == Status.RUNNING and record.worker_id == worker_id
    if not again:
        if record.status != Status.QUEUED or not store.is_next(conn, record):
            raise _stale(asked.run_id, asked.lease)
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
) -> Assignment:
    agent = agent_of(conn, record)
    config = RunConfig.model_validate(record.config)
    mine = store.of_thread(conn, record.org_id, record.thread_id)
    before = {one.id for one in mine if (one.created_at, one.id) < (record.created_at, record.id)}
    found = store.logs(conn, record.org_id, record.thread_id, _EARLIER) if before else []
    log_ = store.events(conn, record.org_id, record.id, 0, _WHOLE_LOG)
    earlier = _since_compaction([one for one in found if one.run_id in before])
    size = sum(len(one.data) + len(one.wire or "") for one in (*earlier, *log_))
    if size > MAX_CONVERSATION_BYTES:
        raise TooLarge(
            f"the conversation of {record.id} has {size} bytes; one may have {MAX_CONVERSATION_BYTES}",
            hint="begin another thread",
            details={"limitBytes": MAX_CONVERSATION_BYTES},
        )
    return Assignment(
        run=look.shape(record),
        agent=agent,
        model=model,
        output_schema=record.output_schema,
        limits=_limits(conn, record, agent, config, usual, now),
        spent_seconds=record.active_ms / 1000,
        config=config.model_dump(mode="json", exclude_none=True, by_alias=False),
        earlier=look.logged(earlier),
        log=look.logged(log_),
        token=token,
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
    most_tokens = 0
    if allowed.agent_tokens:
        most_tokens = max(1, allowed.agent_tokens - tokens) + rules.tokens(used)
    most_usd = None
    if allowed.agent_cents:
        left = Decimal(allowed.agent_cents) / 100 - Decimal(nano) / rules.NANO
        most_usd = max(Decimal(0), left) + rules.usd(used.cost_usd)
    return rules.budget(agent, config, most_tokens, most_usd)


def _since_compaction(found: list[Event]) -> list[Event]:
    """What no summary stands for: from the last one on, with what came while that was made."""
    for n in range(len(found) - 1, -1, -1):
        summary = found[n]
        if summary.type == "compaction":
            seen = int(json.loads(summary.wire or "{}").get("seen") or summary.seq)
            missed = [
                one
                for one in found[:n]
                if one.run_id == summary.run_id and one.seq > seen and one.type == "message"
            ]
            return [*missed, *found[n:]]
    return found


async def _give_up(platform: Platform, asked: Take, error: RunToolsError) -> None:
    """End a run that nobody can drive, and what an earlier worker has left running."""
    seen = await platform.db.read(store.known, asked.run_id)
    if seen is None or seen.lease != asked.lease or store.is_over(seen):
        return
    await leftovers.end_commands(platform, seen)
    usual, now = standard(platform.settings), platform.clock.now()

    def act(conn: Transaction) -> tuple[Record, list[Event]] | None:
        record = store.held(conn, asked.run_id)
        if record is None or record.lease != asked.lease or store.is_over(record):
            return None
        grown = log.drop(conn, record, Status.FAILED, now, usual, error)
        return grown.record, grown.fresh

    done = await platform.db.write(act)
    if done is not None:
        told(platform, *done)


# --- growing and reading ---


async def append(platform: Platform, worker_id: str, asked: Append) -> tuple[News, Record]:
    """Append to a run's log, end the run or let go of it.

    Raises:
        Conflict: the lease is not the latest.
        InvalidRequest: an event has not its form.
    """
    if any(one.key.startswith(OWN_KEYS) for one in asked.events):
        raise http.wrong_field("key", f"those that begin with {OWN_KEYS} are the platform's")
    usual, now = standard(platform.settings), platform.clock.now()
    news, before, record, fresh = await platform.db.write(_append, worker_id, asked, usual, now)
    if record.token_digest is None and before.token_digest is not None:
        platform.door.forget(before.token_digest)
    told(platform, record, fresh)
    return news, record


def _append(
    conn: Transaction, worker_id: str, asked: Append, usual: Amounts, now: datetime
) -> tuple[News, Record, Record, list[Event]]:
    record = _leased(conn, worker_id, asked.run_id, asked.lease)
    keys = [one.key for one in asked.events]
    there = store.under(conn, record, keys) if keys else {}
    repeated = all(key in there for key in keys)
    if record.status != Status.RUNNING:
        if not repeated:
            raise _stale(record.id, asked.lease)
        known = look.logged([there[key] for key in keys])
        return News(events=known, cancel=False), record, record, []
    new = not repeated or asked.wait
    if new and asked.seen is not None and _is_news(conn, record, asked.seen):
        missed = store.events(conn, record.org_id, record.id, asked.seen, _WHOLE_LOG)
        news = News(events=look.logged(missed), cancel=record.cancel_requested)
        return news, record, record, []
    events = [New(one.key, one.type, one.data, one.wire) for one in asked.events]
    grown = log.append(conn, record, events, now, usual)
    after = grown.record
    if asked.wait and after.status == Status.RUNNING:
        after = log.wait(conn, after, now)
    news = News(
        events=look.logged(grown.events), cancel=after.cancel_requested, exceeded=grown.exceeded
    )
    return news, record, after, grown.fresh


def _is_news(conn: Transaction, record: Record, seen: int) -> bool:
    """Whether a worker that has read up to a number has missed what others said."""
    if record.cancel_requested:
        return True
    return record.last_seq > seen and store.others_after(conn, record, seen)


async def read(platform: Platform, worker_id: str, asked: Read) -> tuple[News, Record]:
    """What stands in a run's log after a number.

    Raises:
        Conflict: the lease is not the latest.
    """

    def look_up(conn: Transaction) -> tuple[News, Record]:
        record = _leased(conn, worker_id, asked.run_id, asked.lease, lock=False)
        if record.status != Status.RUNNING:
            raise _stale(record.id, asked.lease)
        found = store.events(conn, record.org_id, record.id, asked.after, _WHOLE_LOG)
        return News(events=look.logged(found), cancel=record.cancel_requested), record

    return await platform.db.read(look_up)


async def release(platform: Platform, worker_id: str, asked: Release) -> None:
    """Offer a run anew that its worker does not go on with.

    Raises:
        Conflict: the lease is not the latest.
    """
    now = platform.clock.now()

    def act(conn: Transaction) -> tuple[Record, Record]:
        record = _leased(conn, worker_id, asked.run_id, asked.lease)
        if record.status != Status.RUNNING:
            return record, record
        return record, log.requeue(conn, record, now)

    before, record = await platform.db.write(act)
    if before.token_digest is not None and record.token_digest is None:
        platform.door.forget(before.token_digest)
    told(platform, record, [])


# --- secrets ---


async def secret(platform: Platform, worker_id: str, asked: Secret) -> Value:
    """The value of a secret that the run's agent may use.

    Raises:
        Forbidden: it is none of those.
        NotFound: the org has none of that name that agents may use for it.
    """
    record = await held(platform, worker_id, asked.run_id, asked.lease)
    if asked.server is None:
        value, category = await _own_key(platform, record, asked.name), keys.CATEGORY
    else:
        value, category = await _servers_key(platform, record, asked.server, asked.name), _TOOL
    if value is None:
        raise NotFound(
            f"the org has no secret {asked.name!r} of category {category} that agents may use",
            hint=f"runtools secret set {asked.name} --category {category}; its scope must be agents"
            " or all",
            details={"name": asked.name},
        )
    await _tell(platform, record, asked.name)
    return Value(value=value)


async def _own_key(platform: Platform, record: Record, name: str) -> str | None:
    """What the platform itself asks the run's model, or the search, with."""
    model = await access(platform, record.org_id, record.model)
    if name not in {model.key_name, SEARCH_KEY}:
        raise _no_business(record, name)
    # The machine's own keys are not for addresses that members choose.
    around = name == SEARCH_KEY or model.base_url is None
    return await keys.value(platform, record.org_id, name, around=around)


async def _servers_key(platform: Platform, record: Record, server: str, name: str) -> str | None:
    """What is sent to an MCP server: of category `tool` alone, never what a model is asked with."""
    agent = await platform.db.read(agent_of, record)
    if not any((one.name, one.secret) == (server, name) for one in agent.mcp_servers):
        raise _no_business(record, name)
    found = await platform.db.read(secrets.value, record.org_id, name)
    if found is None or found[0].category != _TOOL or found[0].scope not in _AGENTS:
        return None
    return platform.vault.open(found[1], secrets.LABEL, record.org_id, name)


def _no_business(record: Record, name: str) -> Forbidden:
    return Forbidden(
        f"{record.id} has no business with secret {name!r}",
        hint="the key of its model, of the search, and what its agent's MCP servers name",
    )


async def _tell(platform: Platform, record: Record, name: str) -> None:
    """A line of the audit log: a run was given a secret."""
    line = Line(
        id=new_id("aud"),
        org_id=record.org_id,
        at=platform.clock.now(),
        actor=record.id,
        action="secrets.use",
        resource=name,
        status=200,
        error=None,
        request_id=record.id,
        source="worker",
    )
    await platform.db.write(audit.add, [line])


# --- means ---


async def held(platform: Platform, worker_id: str, run_id: str, lease: int) -> Record:
    """A run that a worker drives.

    Raises:
        Conflict: it does not.
    """

    def look_up(conn: Transaction) -> Record:
        record = _leased(conn, worker_id, run_id, lease, lock=False)
        if record.status != Status.RUNNING:
            raise _stale(run_id, lease)
        return record

    return await platform.db.read(look_up)


def agent_of(conn: Transaction, record: Record) -> AgentDefinition:
    """What the run's agent is, in the version that it began with."""
    made = definitions.version(conn, record.org_id, record.agent_id, record.version_id)
    assert made is not None  # noqa: S101 - versions outlive what they are versions of
    return AgentDefinition.model_validate(made.says)


def _leased(
    conn: Transaction, worker_id: str, run_id: str, lease: int, *, lock: bool = True
) -> Record:
    record = store.held(conn, run_id) if lock else store.known(conn, run_id)
    if record is None or record.lease != lease:
        raise _stale(run_id, lease)
    if record.status == Status.RUNNING and record.worker_id != worker_id:
        raise _stale(run_id, lease)
    return record


def _stale(run_id: str, lease: int) -> Conflict:
    return Conflict(
        f"{run_id[:80]} is not driven under lease {lease} any more, or not yet",
        hint="leave it: it is offered anew to whoever is to drive it",
        details={"lease": lease},
    )
