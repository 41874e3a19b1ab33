"""Pausing what nobody uses, and what has run for as long as it may.

Looking does not keep a sandbox awake: the guest's own counts are read over a connection that is not
counted as use, only for sandboxes that have a limit, and only while nothing of ours runs in them.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from runtools.errors import RunToolsError
from runtools.platform.core.states import State
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.pause import pause, pause_if_idle, release
from runtools.platform.host.engine.engine import Engine, chosen
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.guest.client import Activity

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
MEASURE_SECONDS = 30.0
# Of one virtual CPU: a program that has but one thread is no less at work in a large sandbox.
BUSY_SHARE = 0.05
# How long a paused sandbox keeps its network, so that connections survive a short pause.
NETWORK_SECONDS = 300.0
_ANSWER_SECONDS = 10.0
# Not all guests at the same moment: each answer costs the machine a little of its CPU.
_AT_ONCE = 4
# A guest that did not answer is asked again after so long, twice as long each time, up to a bound.
_SILENT_SECONDS = 20.0
_MOST_SILENT_SECONDS = 300.0


def is_active(before: Activity | None, after: Activity, vcpus: int) -> bool:
    """Whether something went on in the guest between two looks."""
    if after.running_execs > 0:
        return True
    if before is None:
        return False
    if after.output_bytes != before.output_bytes:
        return True
    if after.connections > 0 and _flowed(before.traffic_bytes, after.traffic_bytes):
        return True
    passed = after.cpu_total_seconds - before.cpu_total_seconds
    worked = after.cpu_busy_seconds - before.cpu_busy_seconds
    return passed > 0 and worked / (passed / vcpus) > BUSY_SHARE


def _flowed(before: int | None, after: int | None) -> bool:
    """Whether open connections carried anything; where nobody counts, being open is enough."""
    return after is None or after != before


@dataclass(frozen=True, slots=True)
class _Silence:
    """Until when a guest that did not answer is left alone, and how long that is."""

    until: float
    pause: float


class Idle:
    """Looks at all sandboxes every few seconds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._looks: dict[str, Activity] = {}
        self._silent: dict[str, _Silence] = {}
        self._under_eye: set[str] = set()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._waiting_room = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Look for ever; a look that guests keep waiting holds up no later one."""
        while True:
            await self._engine.clock.sleep(LOOK_SECONDS)
            self._engine.later(self.look(), "looking who is idle")

    async def look(self) -> None:
        """Look once at every sandbox at which nobody looks yet."""
        running = chosen(self._engine.actors.values(), State.RUNNING)
        ids = {box.id for box in running}
        for known in (self._looks, self._silent):
            for gone in known.keys() - ids:
                del known[gone]
        # What needs no guest's answer waits for none.
        for box in chosen(self._engine.actors.values(), State.PAUSED):
            self._release(box)
        staying = [box for box in running if not self._outlived(box)]
        await asyncio.gather(*(self._look_at(box) for box in staying))

    async def _look_at(self, box: Actor) -> None:
        if box.id in self._under_eye:
            return
        self._under_eye.add(box.id)
        try:
            # Those who were silent wait among themselves, not in the way of those who answer.
            async with self._waiting_room if box.id in self._silent else self._room:
                if box.state is State.RUNNING and box.record.under_way is None:
                    await self._consider(box)
                    await self._measure(box)
        except Exception:  # one sandbox's trouble must not end the watch over the others
            log.exception("looking whether %s is idle failed", box.id)
        finally:
            self._under_eye.discard(box.id)

    def _outlived(self, box: Actor) -> bool:
        limit, since = box.record.order.max_lifetime_seconds, box.record.running_since
        if limit is None or since is None or box.record.under_way is not None:
            return False
        if (self._engine.clock.now() - since).total_seconds() < limit:
            return False
        self._engine.later(_pause(box), f"pausing {box.id}")
        return True

    async def _consider(self, box: Actor) -> None:
        limit = box.record.order.idle_timeout_seconds
        if limit == 0:
            return
        now = self._engine.clock.monotonic()
        went_on = box.uses > 0 or await self._went_on(box)
        if went_on:
            box.touched = now
        elif went_on is not None and now - box.touched >= limit:
            why, touched = Why("idle", PLATFORM), box.touched
            if box.id in self._silent:
                log.warning("%s is paused as idle though its guest agent says nothing", box.id)
            await box.perform(lambda: pause_if_idle(box, why, touched))

    async def _went_on(self, box: Actor) -> bool | None:
        """Whether something went on since the last look; None where there is none to compare with.

        A guest that does not answer is not kept running for it: it counts as one in which nothing goes on.
        """
        before = self._looks.get(box.id)
        if box.guest is None or self._is_silent(box):
            return False
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                seen = await box.guest.activity()
        except (RunToolsError, OSError, TimeoutError) as exc:
            self._said_nothing(box, exc)
            return False
        self._silent.pop(box.id, None)
        self._looks[box.id] = seen
        if before is None and seen.running_execs == 0:
            return None
        return is_active(before, seen, box.record.order.sizes.vcpus)

    async def _measure(self, box: Actor) -> None:
        """Have the guest's stats at hand for a pause, and for the case that it dies."""
        now = self._engine.clock.now()
        known = box.stats
        if known is not None and (now - known.measured_at).total_seconds() < MEASURE_SECONDS:
            return
        if box.state is not State.RUNNING or box.guest is None or self._is_silent(box):
            return
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                box.stats = await box.guest.stats()
        except (RunToolsError, OSError, TimeoutError) as exc:
            self._said_nothing(box, exc)

    def _is_silent(self, box: Actor) -> bool:
        """Whether it did not answer, and is not to be asked again yet."""
        known = self._silent.get(box.id)
        return known is not None and self._engine.clock.monotonic() < known.until

    def _said_nothing(self, box: Actor, why: Exception) -> None:
        known = self._silent.get(box.id)
        pause = _SILENT_SECONDS if known is None else min(known.pause * 2, _MOST_SILENT_SECONDS)
        self._silent[box.id] = _Silence(self._engine.clock.monotonic() + pause, pause)
        if known is None:
            said = str(why) or type(why).__name__
            log.warning(
                "the guest agent of %s says nothing, so it counts as idle: %s", box.id, said
            )

    def _release(self, box: Actor) -> None:
        paused_at = box.record.paused_at
        if box.guest is None and not box.slots():
            return
        if paused_at is None or box.record.under_way is not None:
            return
        if (self._engine.clock.now() - paused_at).total_seconds() >= NETWORK_SECONDS:
            self._engine.later(_release(box), f"releasing the network of {box.id}")


async def _pause(box: Actor) -> None:
    await box.perform(lambda: pause(box, Why("lifetime", PLATFORM)))


async def _release(box: Actor) -> None:
    await box.perform(lambda: release(box))
