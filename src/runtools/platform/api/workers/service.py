"""What workers ask, under a run's lease: taking it, growing and reading its log, its secrets."""

from __future__ import annotations

from datetime import datetime, timedelta

from runtools.errors import (
    Conflict,
    Forbidden,
    NotFound,
)
from runtools.platform.api.audit import store as audit
from runtools.platform.api.audit.store import Line
from runtools.platform.api.leftovers import service as leftovers
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.logs import store as logs
from runtools.platform.api.models import keys
from runtools.platform.api.models.access import way
from runtools.platform.api.platform import Platform
from runtools.platform.api.runs import log, look, store
from runtools.platform.api.runs.agent import agent_of
from runtools.platform.api.runs.log import New
from runtools.platform.api.runs.look import Written
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.api.runs.telling import told
from runtools.platform.api.secrets import sent
from runtools.platform.api.secrets import store as secrets
from runtools.platform.core.ids import new_id
from runtools.platform.core.models import SEARCH_KEY
from runtools.platform.core.ports.worker import (
    EARLIER,
    OWN_KEYS,
    Append,
    Earlier,
    Read,
    ReadEarlier,
    Release,
    Secret,
    Value,
)
from runtools.platform.core.runs import Status
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.limits import Amounts

_AGENTS = frozenset({"all", "agents"})
_TOOL = "tool"
_SECOND = timedelta(seconds=1)


# --- growing and reading ---


async def append(platform: Platform, worker_id: str, asked: Append) -> tuple[Written, Record]:
    """Append to a run's log, end the run or let go of it.

    Raises:
        Conflict: the lease is not the latest.
        InvalidRequest: an event has not its form.
    """
    if any(one.key.startswith(OWN_KEYS) for one in asked.events):
        raise http.wrong_field("key", f"those that begin with {OWN_KEYS} are the platform's")
    if not all(one.startswith(f"{asked.run_id}.") for one in asked.left):
        raise http.wrong_field("left", f"a process is none of {asked.run_id[:80]}")
    usual, now = standard(platform.settings), platform.clock.now()
    news, before, record, fresh = await platform.db.write(_append, worker_id, asked, usual, now)
    lets_go = before.token_digest if record.token_digest is None else None
    if lets_go is not None:
        platform.door.forget(lets_go)
    if lets_go is not None or asked.left:  # from here on its worker ends nothing of that
        platform.spawn(leftovers.end_of(platform, record), f"what {record.id} has left")
    told(platform, record, fresh)
    return news, record


def _append(
    conn: Transaction, worker_id: str, asked: Append, usual: Amounts, now: datetime
) -> tuple[Written, Record, Record, list[Event]]:
    record = _leased(conn, worker_id, asked.run_id, asked.lease)
    keys = [one.key for one in asked.events]
    events = [New(one.key, one.type, one.data, one.wire) for one in asked.events]
    there = log.standing(conn, record, events) if events else {}
    repeated = all(key in there for key in keys)
    if record.status != Status.RUNNING:
        if not repeated:
            raise stale(record.id, asked.lease)
        return look.news([there[key] for key in keys], cancel=False), record, record, []
    leftovers.note_commands(conn, record, asked.left)
    new = not repeated or asked.wait
    if new and asked.seen is not None and _is_news(conn, record, asked.seen):
        missed, more = logs.events(conn, record.org_id, record.id, asked.seen)
        news = look.news(missed, cancel=record.cancel_requested, more=more)
        return news, record, record, []
    grown = log.append(conn, record, events, now, usual, there)
    after = grown.record
    if asked.wait and after.status == Status.RUNNING:
        after = log.wait(conn, after, now)
    if after.status != Status.RUNNING:
        leftovers.note_servers(conn, after)
    news = look.news(grown.events, cancel=after.cancel_requested, exceeded=grown.exceeded)
    return news, record, after, grown.fresh


def _is_news(conn: Transaction, record: Record, seen: int) -> bool:
    """Whether a worker that has read up to a number has missed what others said."""
    if record.cancel_requested:
        return True
    return record.last_seq > seen and store.others_after(conn, record, seen)


async def read(platform: Platform, worker_id: str, asked: Read) -> tuple[Written, Record]:
    """What stands in a run's log after a number.

    Raises:
        Conflict: the lease is not the latest.
    """

    def look_up(conn: Transaction) -> tuple[Written, Record]:
        record = _leased(conn, worker_id, asked.run_id, asked.lease, lock=False)
        if record.status != Status.RUNNING:
            raise stale(record.id, asked.lease)
        found, more = logs.events(conn, record.org_id, record.id, asked.after)
        news = look.news(found, cancel=record.cancel_requested, more=more)
        return news, record

    return await platform.db.read(look_up)


async def read_earlier(platform: Platform, worker_id: str, asked: ReadEarlier) -> Earlier:
    """What the thread's runs before this one said, after an event of theirs.

    Raises:
        Conflict: the lease is not the latest.
        NotFound: its thread has no such run.
    """
    record = await held(platform, worker_id, asked.run_id, asked.lease)

    def look_up(conn: Transaction) -> Earlier:
        after = logs.place_of(conn, record, asked.after_run, asked.after)
        if after is None:
            raise NotFound(f"thread {record.thread_id} has no run {asked.after_run[:80]!r}")
        found = logs.of_thread(conn, record.org_id, record.thread_id, EARLIER, after, record)
        return Earlier(events=look.logged(found.events), more=found.more)

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
        return record, log.requeue(conn, record, now, lost=not asked.ending)

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
        SecretUnfit: no header may hold it.
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
    await tell(platform, record, asked.name)
    return Value(value=value)


async def _own_key(platform: Platform, record: Record, name: str) -> str | None:
    """What the platform itself asks the run's model, or the search, with."""
    model = await way(platform, record.org_id, record.model)
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
    value = platform.vault.open(found[1], secrets.LABEL, record.org_id, name)
    return sent.checked(name, value)


def _no_business(record: Record, name: str) -> Forbidden:
    return Forbidden(
        f"{record.id} has no business with secret {name!r}",
        hint="the key of its model, of the search, and what its agent's MCP servers name",
    )


async def tell(platform: Platform, record: Record, name: str) -> None:
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
            raise stale(run_id, lease)
        return record

    return await platform.db.read(look_up)


def _leased(
    conn: Transaction, worker_id: str, run_id: str, lease: int, *, lock: bool = True
) -> Record:
    record = store.held(conn, run_id) if lock else store.known(conn, run_id)
    if record is None or record.lease != lease:
        raise stale(run_id, lease)
    if record.status == Status.RUNNING and record.worker_id != worker_id:
        raise stale(run_id, lease)
    return record


def stale(run_id: str, lease: int) -> Conflict:
    return Conflict(
        f"{run_id[:80]} is not driven under lease {lease} any more, or not yet",
        hint="leave it: it is offered anew to whoever is to drive it",
        details={"lease": lease},
    )
