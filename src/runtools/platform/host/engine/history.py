"""What each sandbox took in the last hour: a point every ten seconds, seen from the host.

Processor, memory, disk and network are the kernel's counts of the VMM, its disk file and its cable: no
guest is asked and none is woken. Beside them stands what the guest last said of itself, which the idle
watch asks for anyway. Points lie in a ring file of fixed size in the sandbox's folder, so an hour of any
number of sandboxes takes no memory here and survives a restart of the host. What could not be written is in
the figures of the next point. The time for which there are no figures is stated with its reason, never
filled in.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runtools.platform.core.ports.driver import Slot, Usage, VmmFailed
from runtools.platform.core.ports.network import Traffic
from runtools.platform.core.states import State
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.engine import Engine, chosen
from runtools.sdk.shapes.inside import GapReason, Stats, StatsGap, StatsHistory, StatsPoint

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 10
KEPT_SECONDS = 3600
FILE = "history"

# One more than an hour has: the newest point takes the place of none that is still told.
_SLOTS = KEPT_SECONDS // INTERVAL_SECONDS + 1
# at, seconds, cpu percent, memory, disk, received, sent, guest's memory, guest's disk, what was before
_POINT = struct.Struct("<dffqqqqqqB")
_SUM = struct.Struct("<I")
_RECORD = _POINT.size + _SUM.size
_NONE = -1
# A guest's word that is older says nothing about this point any more.
_GUEST_SECONDS = 60.0
_LATE_SECONDS = 3 * INTERVAL_SECONDS
# What the kernel's two clocks may differ by.
_SLACK_SECONDS = 0.5

# Why there is no point between one and the one before it.
_GOES_ON, _BORN, _PAUSED, _UNWATCHED = range(4)
_REASONS: dict[int, GapReason] = {_PAUSED: "paused", _UNWATCHED: "not_watched"}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was counted when a sandbox was last looked at (monotonic time)."""

    at: float
    life: int
    usage: Usage
    slot: Slot | None
    traffic: Traffic | None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class _Taken:
    """A point, and what the one after it is counted from."""

    sandbox: str
    file: Path
    at: float
    packed: bytes
    seen: _Seen


class History:
    """Looks at all sandboxes every ten seconds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._began = engine.clock.now()
        self._seen: dict[str, _Seen] = {}
        self._still: set[str] = set()  # paused, and never seen awake by this process

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self._engine.clock.sleep(INTERVAL_SECONDS)
            try:
                await self.look()
            except Exception:
                # The edge of a loop that must not end with one look.
                log.exception("measuring the sandboxes failed; it is tried again")

    async def look(self) -> None:
        """Take one point of every sandbox that runs."""
        points: list[_Taken] = []
        for box in chosen(self._engine.actors.values(), State.RUNNING):
            try:
                point = await self._point(box)
            except (VmmFailed, OSError) as exc:
                log.debug("%s was not measured: %s", box.id, exc)
                continue
            if point is not None:
                points.append(point)
        for point in await asyncio.to_thread(_write, points):
            self._seen[point.sandbox] = point.seen
            self._still.discard(point.sandbox)
        self._look_away()

    def _look_away(self) -> None:
        """Note who is paused, and forget who has ended."""
        states = {box.id: box.state for box in self._engine.actors.values()}
        for sandbox_id in [*self._seen, *self._still]:
            if states.get(sandbox_id, State.STOPPED) is State.STOPPED:
                self._seen.pop(sandbox_id, None)
                self._still.discard(sandbox_id)
        for box in chosen(self._engine.actors.values(), State.PAUSED):
            seen = self._seen.get(box.id)
            if seen is None:
                self._still.add(box.id)
            elif not seen.paused:
                self._seen[box.id] = replace(seen, paused=True)

    async def _point(self, box: Actor) -> _Taken | None:
        life = box.record.life
        assert life is not None  # noqa: S101 - it is running
        engine = self._engine
        usage = await engine.driver.usage(box.machine(life))
        if usage is None or box.record.life is not life:
            return None  # it has ended meanwhile, or became another machine
        traffic = None if life.slot is None else engine.network.traffic(life.slot)
        last = self._seen.get(box.id)
        now = _Seen(engine.clock.monotonic(), life.number, usage, life.slot, traffic)
        before = self._before(box, last, now)
        seconds, worked = _worked(last, now, before)
        cpu = 100 * worked / (seconds * box.record.order.sizes.vcpus) if seconds else math.nan
        received, sent = _flowed(last, now, before)
        at = engine.clock.now()
        guest = _recent(box.stats, at)
        packed = _POINT.pack(
            at.timestamp(),
            seconds,
            cpu,
            usage.memory_bytes,
            box.overlay.stat().st_blocks * 512,
            received,
            sent,
            guest.memory_used_bytes if guest else _NONE,
            guest.disk_used_bytes if guest else _NONE,
            before,
        )
        return _Taken(box.id, box.folder / FILE, at.timestamp(), packed, now)

    def _before(self, box: Actor, last: _Seen | None, now: _Seen) -> int:
        if last is not None:
            return _GOES_ON if _is_same_vmm(last, now) else _PAUSED
        if box.id in self._still:
            return _PAUSED
        since = box.record.running_since
        return _BORN if since is not None and since >= self._began else _UNWATCHED

    async def of(self, box: Actor) -> StatsHistory:
        """The last hour of a sandbox, of an ended one too while its disk is kept."""
        until = self._engine.clock.now()
        since = until - timedelta(seconds=KEPT_SECONDS)
        found = await asyncio.to_thread(_read, box.folder / FILE)
        kept = sorted(
            (one for one in found if since < one[0].at <= until), key=lambda one: one[0].at
        )
        points = [point for point, _ in kept]
        gaps = list(_between(since, kept))
        last = points[-1].at if points else since
        missing = _missing(box, (until - last).total_seconds())
        if missing is not None:
            ended = box.record.stopped_at or box.record.paused_at
            begun = max(last, ended) if ended else last
            gaps.append(StatsGap(since=begun, until=until, reason=missing))
        return StatsHistory(
            interval_seconds=INTERVAL_SECONDS, since=since, until=until, points=points, gaps=gaps
        )


def forget(folder: Path) -> None:
    """Remove the history that lies in a sandbox's folder."""
    (folder / FILE).unlink(missing_ok=True)


def _is_same_vmm(last: _Seen, now: _Seen) -> bool:
    """Whether it ran at the last look; a pause may lie between two looks."""
    if last.paused or last.life != now.life:
        return False
    return now.usage.age_seconds + _SLACK_SECONDS >= now.at - last.at


def _worked(last: _Seen | None, now: _Seen, before: int) -> tuple[float, float]:
    """For how many seconds the counts are, and the processor's seconds in them."""
    if last is not None and before == _GOES_ON:
        return now.at - last.at, max(0.0, now.usage.cpu_seconds - last.usage.cpu_seconds)
    if before == _UNWATCHED:
        return 0.0, 0.0
    return now.usage.age_seconds, now.usage.cpu_seconds  # a VMM that is new since the last look


def _flowed(last: _Seen | None, now: _Seen, before: int) -> tuple[int, int]:
    """Bytes received and sent since the last look."""
    traffic = now.traffic
    if traffic is None:
        return _NONE, _NONE
    if last is not None and last.slot == now.slot and last.traffic is not None:
        old = last.traffic
        return max(0, traffic.received - old.received), max(0, traffic.sent - old.sent)
    if last is None and before != _BORN:
        return _NONE, _NONE
    return traffic.received, traffic.sent


def _recent(stats: Stats | None, now: datetime) -> Stats | None:
    if stats is None or (now - stats.measured_at).total_seconds() > _GUEST_SECONDS:
        return None
    return stats


def _missing(box: Actor, seconds: float) -> GapReason | None:
    """Why there is nothing after the last point."""
    if box.state is State.STOPPED:
        return "stopped"
    if box.state is State.PAUSED:
        return "paused"
    if box.state is State.CREATING:
        return "creating"
    since = box.record.running_since
    if seconds <= _LATE_SECONDS or since is None:
        return None
    running = (box.engine.clock.now() - since).total_seconds()
    return "not_watched" if running > _LATE_SECONDS else None


def _between(since: datetime, kept: Iterable[tuple[StatsPoint, int]]) -> Iterable[StatsGap]:
    """The stretches before points that did not follow another; ``since`` is where the hour begins.

    Where one goes on from what is not there (a file that was damaged, a machine that slept), nobody knows
    more than that.
    """
    last, hole = since, timedelta(seconds=INTERVAL_SECONDS / 2)
    for point, before in kept:
        reason = _REASONS.get(before)
        begun = point.at - timedelta(seconds=point.seconds)
        if before == _GOES_ON and begun - last > hole:
            reason = "not_watched"
        if reason is not None and begun > last:
            yield StatsGap(since=last, until=begun, reason=reason)
        last = point.at


# --- the ring ---


def _write(points: Iterable[_Taken]) -> list[_Taken]:
    """Put points into their files; returns those that are there."""
    written = []
    for point in points:
        place = int(point.at // INTERVAL_SECONDS) % _SLOTS * _RECORD
        record = point.packed + _SUM.pack(zlib.crc32(point.packed))
        try:
            fd = os.open(point.file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                whole = os.pwrite(fd, record, place) == len(record)
            finally:
                os.close(fd)
        except OSError as exc:
            log.debug("%s: %s", point.file, exc)
            continue
        if whole:
            written.append(point)
    return written


def _read(file: Path) -> list[tuple[StatsPoint, int]]:
    """All points that lie in a file, in no order; what is not whole is left out."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for start in range(0, min(len(data), _SLOTS * _RECORD) - _RECORD + 1, _RECORD):
        packed = data[start : start + _POINT.size]
        (told,) = _SUM.unpack_from(data, start + _POINT.size)
        if any(packed) and zlib.crc32(packed) == told:
            found.append(_unpacked(packed))
    return found


def _unpacked(packed: bytes) -> tuple[StatsPoint, int]:
    at, seconds, cpu, memory, disk, received, sent, guest_memory, guest_disk, before = (
        _POINT.unpack(packed)
    )
    point = StatsPoint(
        at=datetime.fromtimestamp(at, UTC),
        seconds=round(seconds, 2),
        cpu_percent=None if math.isnan(cpu) else round(cpu, 2),
        memory_bytes=memory,
        disk_bytes=disk,
        received_bytes=None if received == _NONE else received,
        sent_bytes=None if sent == _NONE else sent,
        guest_memory_used_bytes=None if guest_memory == _NONE else guest_memory,
        guest_disk_used_bytes=None if guest_disk == _NONE else guest_disk,
    )
    return point, before
