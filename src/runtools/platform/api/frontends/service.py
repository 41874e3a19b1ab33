"""What a front end asks for, done: a run in the chat's thread, a word in one under way, or decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from runtools.errors import Conflict, InvalidRequest, NotFound, RunEnded
from runtools.platform.api.calls import Call
from runtools.platform.api.definitions import service as definitions
from runtools.platform.api.frontends.asked import Asked, Decision, schemas_of, thread_of
from runtools.platform.api.limits.rules import standard
from runtools.platform.api.logs import store as logs
from runtools.platform.api.runs import decisions, log, results, steering, store
from runtools.platform.api.runs import service as runs
from runtools.platform.api.runs.results import Given
from runtools.platform.api.runs.tables import Event, Record
from runtools.platform.api.threads import store as threads
from runtools.platform.core.runs import Status
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.runs import RunMessage, RunRequest, RunSteer, Steering

ShapeT = TypeVar("ShapeT", bound=Shape)
_UNDER_WAY = (Status.QUEUED, Status.RUNNING, Status.WAITING)


async def take(call: Call, agent: str, project: str | None, asked: Asked) -> tuple[Record, int]:
    """The run that the front end is to be told of, and after which of its events.

    Raises:
        NotFound: no such agent, or no such call in its chat.
        AlreadyDecided: a call was decided on otherwise.
        Conflict: what was answered is to be answered anew.
        InvalidRequest: the decisions are on calls of several runs, what was said is too much, or what a
            tool says of its parameters is no JSON Schema.
    """
    await call.platform.schemas.check(schemas_of(asked.brought))
    found = await definitions.find(call, "agent", agent, project)
    thread_id = thread_of(call.org, found.id, asked.chat)
    before = await call.platform.db.read(_done_before, call.org, call.op, thread_id)
    if before is not None:
        return before
    if asked.decisions and (decided := await _decided(call, thread_id, asked)) is not None:
        return decided
    whom = {"agent_slug": found.slug, "project": found.project_id}
    brought = asked.brought
    if await call.platform.db.read(threads.find, call.org, thread_id) is None:
        wanted = _shaped(RunRequest, **whom, messages=asked.messages)
        return await runs.create(call, wanted, thread_id=thread_id, brought=brought), 0
    record = await _newest(call, thread_id)
    if record is not None and record.op == call.op:
        return record, 0  # its twin in another process has made it since that look
    results_ = {} if record is None else asked.results_of(record.id)
    gives = False
    if record is not None and (brought or (results_ and record.has_front)):
        record, gives = await _settle(call, record.id, [], results_, brought)
    if not asked.news:
        return await _gone_on(call, record, asked, list(results_))
    if record is not None and asked.again:
        _check_unanswered(record)
    if record is not None and record.status in _UNDER_WAY:
        with suppress(RunEnded):  # it has ended since: what was said begins another
            return await _said(call, record, asked, list(results_), acts=gives)
    news = asked.news
    if record is not None:
        news = await call.platform.db.read(partial(_unheard, acts=gives), record, asked) or news
    wanted = _shaped(RunRequest, **whom, messages=news, thread_id=thread_id)
    return await runs.create(call, wanted, brought=brought), 0


async def under_way(
    call: Call, agent: str, project: str | None, chat: str
) -> tuple[Record, int] | None:
    """What a chat's front end is being told, where a run of the chat is under way.

    Of which run, and after which of its events: the last word said to it began a message of its own.

    Raises:
        NotFound: no such agent.
    """
    found = await definitions.find(call, "agent", agent, project)
    record = await _newest(call, thread_of(call.org, found.id, chat))
    if record is None or record.status not in _UNDER_WAY:
        return None
    said = await call.platform.db.read(store.of_types, record, ("message",))
    steered = [one.seq - 1 for one in said if json.loads(one.data)["steering"] is not None]
    return record, max(steered, default=0)


async def _newest(call: Call, thread_id: str) -> Record | None:
    """The run of a thread that is under way, else the one that was made last."""
    for statuses in (_UNDER_WAY, ()):
        sought = store.Sought(statuses=statuses, thread_id=thread_id)
        if found := await call.platform.db.read(store.page, call.org, sought, None, 1):
            return found[0]
    return None


def _check_unanswered(record: Record) -> None:
    """What an agent has done stays done: only where it came to no end may it be asked anew.

    Raises:
        Conflict: it answers, or has answered.
    """
    if record.status == Status.COMPLETED:
        raise Conflict(
            "the agent has answered, and what it did cannot be taken back",
            hint="say in a further message what is to be otherwise, or begin another chat",
            details={"run": record.id},
        )
    if record.status in _UNDER_WAY:
        raise Conflict(
            f"the agent is at it still: {record.id}",
            hint="read on where it is, say something to it, or cancel the run",
            details={"run": record.id},
        )


def _done_before(
    conn: Transaction, org_id: str, op: str, thread_id: str
) -> tuple[Record, int] | None:
    """What an earlier attempt of the same act came to: the run that it made, or spoke to."""
    made = store.made_by(conn, org_id, op)
    if made is not None:
        return made, 0
    return store.having(conn, org_id, thread_id, steering.key_of(op))


async def _said(
    call: Call, record: Record, asked: Asked, answered: list[str], *, acts: bool
) -> tuple[Record, int]:
    """Say it to the run under way: behind one that works, in place of an answer to one that waits.

    Args:
        answered: the ids of calls that the front end has results of.
        acts: the run had not been given one of those before.

    Raises:
        NotFound: the thread was deleted meanwhile.
        RunEnded: it is over.
    """

    def act(conn: Transaction, record: Record, now: datetime) -> tuple[Record, list[Event]]:
        unheard = _unheard(conn, record, asked, acts=acts)
        words = _words(unheard, breaks_off=record.status == Status.WAITING)
        return steering.say(conn, record, words, call.op, now, usual) if words else (record, [])

    usual = standard(call.platform.settings)
    record = await runs.under_lock(call, record.id, act)
    return await call.platform.db.read(_after_words, record, call.op, answered)


def _words(news: Sequence[RunMessage], *, breaks_off: bool) -> list[RunSteer]:
    """What is said to a run under way."""
    mode: Steering = "interrupt" if breaks_off else "queue"
    return [RunSteer(message=one.content, images=one.images, mode=mode) for one in news]


def _unheard(
    conn: Transaction, record: Record, asked: Asked, *, acts: bool = False
) -> list[RunMessage]:
    return asked.unheard(_words_of(conn, record), acts=acts)


def _words_of(conn: Transaction, record: Record) -> Iterator[str]:
    """What people have said in a run's thread, read a piece at a time: pictures stand beside it."""
    after, more = None, True
    while more:
        piece = logs.of_thread(conn, record.org_id, record.thread_id, ("message",), after)
        said = (json.loads(one.data) for one in piece.events)
        yield from (one["text"] for one in said if one["role"] == "user")
        after, more = piece.last, piece.more


def _after_words(
    conn: Transaction, record: Record, op: str, answered: list[str]
) -> tuple[Record, int]:
    """The run that an act has said something to, and the event before the last of that.

    Where all had been heard before: the last result that the front end has given, or where the run stands.

    Raises:
        NotFound: the thread was deleted meanwhile.
    """
    said = store.having(conn, record.org_id, record.thread_id, steering.key_of(op))
    if said is not None:
        return said
    if store.find(conn, record.org_id, record.id) is None:
        raise NotFound(f"the thread of {record.id} has been deleted")
    given = results.last_of(conn, record, answered)
    return record, record.last_seq if given is None else given


async def _decided(call: Call, thread_id: str, asked: Asked) -> tuple[Record, int] | None:
    """The run whose calls were decided on, with what was said beside; None: that is still to be said.

    Raises:
        NotFound: the chat has no such run, or that no such call.
    """
    wanted = asked.decisions
    if asked.news:  # it is what the person says: what does not insist must not be in its way
        newest = await _newest(call, thread_id)
        its = None if newest is None else newest.id
        wanted = [one for one in wanted if one.insists or one.run_id == its]
    if not wanted:
        return None
    if len({one.run_id for one in wanted}) != 1:
        raise InvalidRequest(
            "the decisions are on calls of several runs", hint="send each by itself"
        )
    run_id = wanted[0].run_id
    found = await call.platform.db.read(store.find, call.org, run_id)
    if found is None or found.thread_id != thread_id:
        raise NotFound(
            f"no call of {run_id[:80]!r} waits in this chat",
            hint="send the decision with the agent and the chat that asked for it",
        )
    results_ = asked.results_of(run_id)
    record, _ = await _settle(call, run_id, wanted, results_, asked.brought, asked)
    calls = {one.what.call_id for one in wanted}
    said = await call.platform.db.read(store.having, call.org, thread_id, steering.key_of(call.op))
    if said is not None:
        return said
    if store.is_over(record):
        answers = any(one.insists for one in wanted)
        if await call.platform.db.read(partial(_unheard, acts=answers), record, asked):
            return None
    resolved = await call.platform.db.read(store.of_types, record, ("approval-resolved",))
    seqs = [one.seq for one in resolved if json.loads(one.data)["callId"] in calls]
    return record, min(seqs, default=record.last_seq + 1) - 1


async def _settle(
    call: Call,
    run_id: str,
    wanted: Sequence[Decision],
    given: Mapping[str, Given],
    brought: dict[str, Any] | None,
    beside: Asked | None = None,
) -> tuple[Record, bool]:
    """Decide on calls, and take in what came of the front end's own and what it brings along from now on.

    Returns the run, and whether a result was new to it.

    What is said beside is heard behind what was allowed, or, where another call waits still, in place of
    its answer. To a run that is over nothing is said. All of it is done, or nothing.

    Raises what `runs.approve` does.
    """

    def act(conn: Transaction, record: Record, now: datetime) -> tuple[Record, list[Event]]:
        if brought is not None and not store.is_over(record):
            store.change(conn, record, {"brought": brought})
            record = replace(record, has_front=True)
        record, fresh = results.give(conn, record, given, now, usual)
        taken.extend(fresh)
        for one in wanted:
            late = () if one.insists else (Conflict, NotFound)
            with suppress(*late):
                record, more = decisions.decide(conn, record, one.what, who, now, usual)
                fresh = [*fresh, *more]
        unheard = (
            [] if beside is None else _unheard(conn, record, beside, acts=answers or bool(taken))
        )
        if unheard and not store.is_over(record):
            waits = log.open_approvals(conn, record, record.last_seq)
            words = _words(unheard, breaks_off=bool(waits))
            record, more = steering.say(conn, record, words, call.op, now, usual)
            fresh = [*fresh, *more]
        return record, fresh

    who, usual = call.actor, standard(call.platform.settings)
    answers = any(one.insists for one in wanted)
    taken: list[Event] = []
    return await runs.under_lock(call, run_id, act), bool(taken)


async def _gone_on(
    call: Call, record: Record | None, asked: Asked, answered: list[str]
) -> tuple[Record, int]:
    """The run that a front end has carried calls out for, after what it said came of them.

    Args:
        answered: the ids of calls that it has results of.

    Raises:
        InvalidRequest: it has carried out none, and says nothing.
        RunEnded: `useChat` asks, which sends the same again by itself for as long as it is told of an end.
    """
    last = None
    if record is not None and asked.message and store.is_over(record):
        raise RunEnded(
            f"{record.id} has ended: {record.status}",
            hint="say something in the chat, and the agent goes on with it",
            details={"run": record.id},
        )
    if record is not None:
        last = await call.platform.db.read(results.last_of, record, answered)
        if last is None and record.has_front and store.is_over(record):
            last = record.last_seq  # it was too late: it is told how the run ended
    if record is None or last is None:
        raise http.wrong_field("messages", "the last of them is to be the user's")
    return record, last


def _shaped(shape: type[ShapeT], **said: Any) -> ShapeT:
    """What is asked for in our own words.

    Raises:
        InvalidRequest: it is more than may be asked for.
    """
    try:
        return shape.model_validate(said)
    except ValidationError as exc:
        raise http.invalid(exc.errors(include_url=False, include_input=False)) from None
