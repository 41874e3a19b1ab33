"""The host service: the host port over one engine. Starts it, stops it, and turns calls into acts."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtools.errors import (
    RunToolsError,
    TemplateInUse,
)
from runtools.platform.core import ids
from runtools.platform.core.ports.driver import Driver
from runtools.platform.core.ports.host import (
    BuildOrder,
    Built,
    CreateOrder,
    Host,
    Observed,
    Stored,
)
from runtools.platform.core.ports.metrics import Family
from runtools.platform.core.ports.network import Network
from runtools.platform.core.states import State
from runtools.platform.host.acting import Acting
from runtools.platform.host.disk import files
from runtools.platform.host.ends import Ends
from runtools.platform.host.engine import durable, memory, snapshots
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.pause import pause
from runtools.platform.host.engine.acts.queued import is_queued
from runtools.platform.host.engine.admission import Admission
from runtools.platform.host.engine.budget import Budget
from runtools.platform.host.engine.engine import Engine, chosen
from runtools.platform.host.engine.history import History
from runtools.platform.host.engine.idle import Idle
from runtools.platform.host.engine.meters import Meters
from runtools.platform.host.engine.ops import Ops
from runtools.platform.host.engine.places import Places
from runtools.platform.host.engine.recovery import Recovery
from runtools.platform.host.engine.reports import Reports
from runtools.platform.host.engine.space import Space
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.entering import Entering
from runtools.platform.host.figures import figures
from runtools.platform.host.inside import Inside
from runtools.platform.host.processes import Processes
from runtools.platform.host.reaching import Reaching
from runtools.platform.kit.clock import Clock, SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.files import write_atomic, write_number
from runtools.platform.kit.tracing import OFF, Tracing
from runtools.sdk.shapes.events import HostView
from runtools.sdk.shapes.sandboxes import DiskUse, Pruned
from runtools.sdk.shapes.templates import BuildLine

if TYPE_CHECKING:
    from runtools.platform.host.templates.service import Templates
    from runtools.platform.host.templates.warm import Warm

log = logging.getLogger(__name__)

# How long acts under way may take to finish when the host is stopped.
_GRACE_SECONDS = 30.0
_PAUSED_AT_ONCE = 4
_PAUSE_ATTEMPTS = 3


class HostService(Inside, Processes, Ends, Acting, Reaching, Host):
    """Owns the sandboxes of one machine. `start` it before anything else is asked of it."""

    def __init__(
        self,
        settings: Settings,
        driver: Driver,
        network: Network,
        templates: Templates,
        warm: Warm,
        first_uid: int,
        clock: Clock | None = None,
        tracing: Tracing = OFF,
    ) -> None:
        self._settings = settings
        self._driver = driver
        self._network = network
        self._templates = templates
        self._warm = warm
        self._first_uid = first_uid
        self._clock = clock or SystemClock()
        self._tracing = tracing
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take over what is there, then go on watching it."""
        places = Places(self._settings.host_home)
        places.prepare()
        boot_file = places.root / "boot-id"
        rebooted = _was_rebooted(boot_file)
        self.engine = await self._engine(places)
        self._host_id = _host_id(places.root / "host-id")
        self.space = Space(self.engine)
        self.idle = Idle(self.engine)
        self.history = History(self.engine)
        self.entering = Entering(self.engine)
        await self._warm.reclaim()
        await self._templates.reclaim()
        await Recovery(self.engine, rebooted=rebooted).run()
        _note_boot(boot_file)
        self.end_owed()
        self._loops = [
            asyncio.create_task(self.idle.run(), name="idle"),
            asyncio.create_task(self.space.watch(), name="space"),
            asyncio.create_task(self.history.run(), name="history"),
        ]

    async def stop(self) -> None:
        """End without touching what runs: the next start adopts it."""
        self.engine.stopping = True
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self.engine.admission.close()
        await self._templates.stop()
        actors = list(self.engine.actors.values())
        await asyncio.gather(*(box.close(_GRACE_SECONDS) for box in actors))
        await self.engine.settle()
        self.engine.reports.close()

    async def shutdown(self) -> dict[str, str]:
        """Pause everything that runs, make it durable, and end; says what runs on, and why."""
        self.engine.stopping = True
        self.engine.admission.close()
        for loop in self._loops:
            loop.cancel()
        left = await self._pause_all()
        paused = chosen(self.engine.actors.values(), State.PAUSED)
        await asyncio.gather(*(durable.make(box) for box in paused if not box.record.durable))
        await self.stop()
        return left

    async def _pause_all(self) -> dict[str, str]:
        """Pause in turn after what is under way, until nothing runs: that may bring up more.

        Returns what could not be paused, with the reason.
        """
        room = asyncio.Semaphore(_PAUSED_AT_ONCE)
        attempts: Counter[str] = Counter()
        said: dict[str, str] = {}

        async def one(box: Actor) -> None:
            async with room:
                attempts[box.id] += 1
                try:
                    await box.perform(lambda: pause(box, Why("shutdown", PLATFORM)))
                except (RunToolsError, OSError) as exc:
                    said[box.id] = str(exc)

        def is_left(box: Actor) -> bool:
            return _is_up(box) and attempts[box.id] < _PAUSE_ATTEMPTS

        while boxes := list(filter(is_left, self.engine.actors.values())):
            await asyncio.gather(*(one(box) for box in boxes))
        up = filter(_is_up, self.engine.actors.values())
        left = {box.id: said.get(box.id, "it is not clear why") for box in up}
        for box_id, why in left.items():
            log.error("%s could not be paused: %s", box_id, why)
        return left

    # --- the port: looking ---

    async def view(self) -> HostView:
        """Identity, driver, capacity."""
        engine, taken = self.engine, self.engine.admission.taken
        return HostView(
            id=self._host_id,
            name=platform.node(),
            driver=engine.driver.name,
            accelerator=engine.capabilities.accelerator,
            isolation=engine.capabilities.isolation,
            alive=True,
            vcpus=os.cpu_count() or 1,
            memory_total_mb=int(engine.admission.budget.memory_mb),
            memory_free_mb=max(0, int(engine.admission.budget.memory_mb - taken.memory_mb)),
            disk_free_bytes=self.space.free_bytes,
            sandboxes_running=len(chosen(engine.actors.values(), State.RUNNING)),
            sandboxes_paused=len(chosen(engine.actors.values(), State.PAUSED)),
            queued=engine.admission.waiting,
        )

    async def metrics(self) -> list[Family]:
        """What it has counted, and how it stands."""
        return figures(self.engine, await self.view())

    def reports(self, epoch: int, seq: int) -> AsyncIterator[Observed]:
        """Every report after (epoch, seq), then live ones for ever."""
        return self.engine.reports.follow(epoch, seq)

    async def known(self) -> list[Observed]:
        """The latest report of every sandbox."""
        return [box.latest() for box in self.engine.actors.values()]

    async def order(self, sandbox_id: str) -> CreateOrder:
        """How a sandbox was ordered."""
        return self.engine.actor(sandbox_id).record.order

    async def settled(self, sandbox_id: str, timeout_seconds: float) -> Observed:
        """Wait until no operation is under way."""
        box = self.engine.actor(sandbox_id)
        await box.settled(timeout_seconds)
        return box.latest()

    # --- the port: templates and space ---

    async def build(self, order: BuildOrder) -> Built:
        """Begin a build."""
        return await self._templates.build(order)

    async def built(self, version_id: str) -> Built:
        """How a build stands."""
        return await self._templates.built(version_id)

    def build_log(self, version_id: str, after: int) -> AsyncIterator[BuildLine]:
        """Its log."""
        return self._templates.build_log(version_id, after)

    async def drop_template(self, version_id: str) -> None:
        """Remove a version that nothing stands on any more."""
        users = [
            box.id
            for box in self.engine.actors.values()
            if box.record.order.template_version_id == version_id
            and (box.state is not State.STOPPED or box.record.keeps_disk)
        ]
        users += [
            kept.snapshot_id
            for kept in snapshots.everything(self.engine.places)
            if kept.template_version_id == version_id
        ]
        if users:
            raise TemplateInUse(
                f"{len(users)} sandboxes and snapshots stand on it, {users[0]} among them",
                hint="destroy them first, or prune those that have ended",
                details={"users": users[:20]},
            )
        await self._templates.drop(version_id)

    async def disk_use(self) -> DiskUse:
        """What takes how much of the disk."""
        return await self.space.use()

    async def stored(self) -> list[Stored]:
        """What every sandbox takes on the disk."""
        return await self.space.stored()

    async def prune(self, ended: bool, warm: bool) -> Pruned:
        """Remove disks kept for recovery, and warm snapshots."""
        return await self.space.prune(ended=ended, warm=warm)

    # --- how ---

    async def _engine(self, places: Places) -> Engine:
        settings = self._settings
        memory_mb = settings.memory_mb or memory.for_sandboxes_mb()
        budget = Budget(memory_mb, settings.max_sandboxes, settings.disk_headroom_mb)
        return Engine(
            settings=settings,
            places=places,
            driver=self._driver,
            network=self._network,
            templates=self._templates,
            warm=self._warm,
            clock=self._clock,
            admission=Admission(budget, lambda: files.free_bytes(places.root), self._clock),
            reports=Reports(places.reports, places.root / "epoch"),
            ops=Ops(places.ops, self._clock),
            capabilities=await self._driver.probe(),
            first_uid=self._first_uid,
            meters=Meters(self._clock),
            tracing=self._tracing,
        )


def _is_up(box: Actor) -> bool:
    """Whether a machine of it runs, or may by the end of what is under way."""
    if box.state is State.STOPPED or is_queued(box):
        return False
    return box.state is not State.PAUSED or box.record.under_way is not None


def _host_id(file: Path) -> str:
    if not file.exists():
        write_atomic(file, ids.new_id("hst").encode())
    return file.read_text()


def _was_rebooted(file: Path) -> bool:
    """Whether the machine was restarted since a host last took over all that was there."""
    return file.exists() and file.read_text() != _boot_id()


def _note_boot(file: Path) -> None:
    if not file.exists() or file.read_text() != _boot_id():
        write_number(file, _boot_id())


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
