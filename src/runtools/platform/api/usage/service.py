"""Adding up usage by sandbox, project or day, and looking what sandboxes take on the disks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from runtools.errors import RunToolsError
from runtools.platform.api.calls import Call
from runtools.platform.api.platform import Platform
from runtools.platform.api.projects import service as projects
from runtools.platform.api.usage import store
from runtools.platform.api.usage.rules import (
    DAY_MS,
    Day,
    Stretch,
    days,
    millis,
    running,
    shares,
    within,
)
from runtools.platform.api.usage.store import User
from runtools.platform.api.usage_days import store as usage_days
from runtools.platform.kit.db import Transaction, moment
from runtools.sdk.shapes.usage import Group, UsageRow

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
DETAILED = timedelta(days=62)  # two months to the millisecond, whichever they are
_CHUNK = 100  # so much is in memory at once
_MB = 1 << 20


@dataclass(slots=True)
class _Used:
    """A row's sums."""

    running_ms: int = 0
    vcpu_ms: int = 0
    memory_mb_ms: int = 0
    stored_mb_ms: int = 0

    def add(self, user: User, ran: int, lay: int) -> None:
        self.running_ms += ran
        self.vcpu_ms += user.vcpus * ran
        self.memory_mb_ms += user.memory_mb * ran
        self.stored_mb_ms += lay


async def by_sandbox(
    call: Call,
    period: tuple[datetime, datetime],
    project: str | None,
    after: str,
    limit: int,
) -> list[UsageRow]:
    """A page of the org's sandboxes with what each used in a period, by id."""
    project_id = await projects.found(call, project)
    now = millis(call.platform.clock.now())
    return await call.platform.db.read(_by_sandbox, call.org, period, project_id, after, limit, now)


async def by_group(
    call: Call, period: tuple[datetime, datetime], project: str | None, group: Group
) -> list[UsageRow]:
    """What the org used in a period, by project, by day, or in all."""
    project_id = await projects.found(call, project)
    now = millis(call.platform.clock.now())
    return await call.platform.db.read(_by_group, call.org, period, project_id, group, now)


async def look_on(platform: Platform) -> None:
    """Look at the disks for ever, and once a day add up what is long gone."""
    done: datetime | None = None
    while True:
        await look(platform)
        before = detailed_from(platform.clock.now())
        if before != done:
            try:
                await add_up(platform, before)
                done = before
            except Exception:
                # The edge of a loop that must not end.
                log.exception("adding up what was used before %s", before)
        await platform.clock.sleep(LOOK_SECONDS)


def detailed_from(now: datetime) -> datetime:
    """The midnight (UTC) before which usage is kept by the day alone."""
    return moment(millis(now) // DAY_MS * DAY_MS * 1000) - DETAILED


async def add_up(platform: Platform, before: datetime) -> None:
    """Add up what every sandbox used before a midnight, each in a transaction of its own."""
    after = ""
    while found := await platform.db.read(usage_days.old, before, after, _CHUNK):
        for sandbox_id in found:
            await platform.db.write(usage_days.add_up, sandbox_id, before)
        after = found[-1]


async def look(platform: Platform) -> None:
    """Write down what every sandbox takes on its host's disk now."""
    for host_id in platform.hosts.ids:
        try:
            found = await platform.hosts.port(host_id).stored()
            sizes = {one.sandbox_id: round(one.size_bytes / _MB) for one in found}
            await platform.db.write(store.seen, host_id, sizes, platform.clock.now())
        except RunToolsError as error:
            log.warning("the disks of host %s cannot be looked at: %s", host_id, error)
        except Exception:
            # The edge of a loop that must not end.
            log.exception("looking at the disks of host %s", host_id)


def _by_sandbox(
    conn: Transaction,
    org_id: str,
    period: tuple[datetime, datetime],
    project_id: str | None,
    after: str,
    limit: int,
    now: int,
) -> list[UsageRow]:
    users = store.users(conn, org_id, *period, project_id, after, limit)
    since, until = millis(period[0]), millis(period[1])
    rows = []
    for user, ran, lay, gone in _stretches(conn, users, period, now):
        used = _Used()
        used.add(user, within(ran, since, until), within(lay, since, until))
        for day in gone:
            used.add(user, *day.share(since, until))
        rows.append(_row(used, sandbox_id=user.id, name=user.name, project_id=user.project_id))
    return rows


def _by_group(
    conn: Transaction,
    org_id: str,
    period: tuple[datetime, datetime],
    project_id: str | None,
    group: Group,
    now: int,
) -> list[UsageRow]:
    since, until = millis(period[0]), millis(period[1])
    cuts = list(days(since, until)) if group == "day" else [("", since, until)]
    name: Callable[[User, str], str] = {
        "day": lambda _user, day: day,
        "project": lambda user, _day: user.project_id,
    }.get(group, lambda _user, _day: "")
    times = [(start, end) for _, start, end in cuts]
    found: dict[str, _Used] = {}
    for user, ran, lay, gone in _all_stretches(conn, org_id, period, project_id, now):
        running_in, lying_in = shares(ran, times), shares(lay, times)
        for n in running_in.keys() | lying_in.keys():
            used = found.setdefault(name(user, cuts[n][0]), _Used())
            used.add(user, running_in.get(n, 0), lying_in.get(n, 0))
        for day in gone:
            for label, start, end in cuts:
                if start < day.until and day.since < end:
                    found.setdefault(name(user, label), _Used()).add(user, *day.share(start, end))
    key = {"day": "day", "project": "project_id"}.get(group)
    return [_row(found[one], **({key: one} if key else {})) for one in sorted(found)]


_Stretches = tuple[User, list[Stretch], list[Stretch], list[Day]]


def _all_stretches(
    conn: Transaction,
    org_id: str,
    period: tuple[datetime, datetime],
    project_id: str | None,
    now: int,
) -> Iterator[_Stretches]:
    after = ""
    while users := store.users(conn, org_id, *period, project_id, after, _CHUNK):
        yield from _stretches(conn, users, period, now)
        after = users[-1].id


def _stretches(
    conn: Transaction, users: list[User], period: tuple[datetime, datetime], now: int
) -> Iterator[_Stretches]:
    ids = [user.id for user in users]
    moves, lay = store.moves_of(conn, ids, period), store.stored_of(conn, ids, period, now)
    gone = usage_days.days_of(conn, ids, period)
    for user in users:
        yield user, list(running(moves[user.id], now)), lay[user.id], gone[user.id]


def _row(used: _Used, **about: str | None) -> UsageRow:
    return UsageRow(**about, **asdict(used))
