"""Adding up usage by sandbox, project or day, and looking what sandboxes take on the disks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime

from runtools.errors import RunToolsError
from runtools.platform.api.calls import Call
from runtools.platform.api.platform import Platform
from runtools.platform.api.projects import service as projects
from runtools.platform.api.usage import store
from runtools.platform.api.usage.rules import Stretch, days, millis, running, within
from runtools.platform.api.usage.store import User
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.usage import Group, UsageRow

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
_CHUNK = 500
_MB = 1 << 20

_Used = tuple[int, int]  # milliseconds it ran, and MB times milliseconds that lay on the disk


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
    """Look at the disks for ever."""
    while True:
        await look(platform)
        await platform.clock.sleep(LOOK_SECONDS)


async def look(platform: Platform) -> None:
    """Write down what every sandbox takes on its host's disk now."""
    for host_id in platform.hosts.ids:
        try:
            found = await platform.hosts.port(host_id).stored()
            sizes = {one.sandbox_id: round(one.size_bytes / _MB) for one in found}
            await platform.db.write(store.seen, host_id, sizes, platform.clock.now())
        except RunToolsError as error:
            log.debug("host %s: %s", host_id, error)
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
    return [
        _row(
            [(user, (within(ran, since, until), within(lay, since, until)))],
            sandbox_id=user.id,
            name=user.name,
            project_id=user.project_id,
        )
        for user, ran, lay in _stretches(conn, users, now)
    ]


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
    found: dict[str, list[tuple[User, _Used]]] = {}
    for user, ran, lay in _all_stretches(conn, org_id, period, project_id, now):
        for day, start, end in cuts:
            used = within(ran, start, end), within(lay, start, end)
            if any(used):
                found.setdefault(name(user, day), []).append((user, used))
    key = {"day": "day", "project": "project_id"}.get(group)
    return [_row(found[one], **({key: one} if key else {})) for one in sorted(found)]


_Stretches = tuple[User, list[Stretch], list[Stretch]]


def _all_stretches(
    conn: Transaction,
    org_id: str,
    period: tuple[datetime, datetime],
    project_id: str | None,
    now: int,
) -> Iterator[_Stretches]:
    after = ""
    while users := store.users(conn, org_id, *period, project_id, after, _CHUNK):
        yield from _stretches(conn, users, now)
        after = users[-1].id


def _stretches(conn: Transaction, users: list[User], now: int) -> Iterator[_Stretches]:
    ids = [user.id for user in users]
    moves, lay = store.moves_of(conn, ids), store.stored_of(conn, ids, now)
    for user in users:
        yield user, list(running(moves[user.id], now)), lay[user.id]


def _row(used: list[tuple[User, _Used]], **about: str | None) -> UsageRow:
    return UsageRow(
        **about,
        running_ms=sum(ran for _, (ran, _) in used),
        vcpu_ms=sum(user.vcpus * ran for user, (ran, _) in used),
        memory_mb_ms=sum(user.memory_mb * ran for user, (ran, _) in used),
        stored_mb_ms=sum(lay for _, (_, lay) in used),
    )
