"""What the acts share: the ports, the books, and the sandboxes by id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtools.errors import NotFound, RunToolsError
from runtools.platform.core.ports.driver import Capabilities, Driver
from runtools.platform.core.ports.network import Network
from runtools.platform.host.engine.admission import Admission
from runtools.platform.host.engine.budget import MB
from runtools.platform.host.engine.meters import Meters
from runtools.platform.host.engine.ops import Ops
from runtools.platform.host.engine.places import Places
from runtools.platform.host.engine.reports import Reports
from runtools.platform.host.guest.holding import Outputs
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.tracing import OFF, Tracing

if TYPE_CHECKING:
    from runtools.platform.host.engine.actor import Actor
    from runtools.platform.host.templates.service import Templates
    from runtools.platform.host.templates.warm import Warm

log = logging.getLogger(__name__)

# So many users, from the first of the install's own on, are given to sandboxes.
SANDBOX_UIDS = 0x8000


@dataclass(slots=True)
class Engine:
    """Everything that an act may need.

    Attributes:
        taking_over: set while a start makes of the journals what it can: it waits for no disk.
        stopping: set when the host is being stopped: cancelled acts leave their journal as it is, and
            none is begun but pauses and destroys.
        first_uid: the first of the user ids that its machines may have.
        pins: snapshots in use, with how often.
        outputs: how much of the guests' output is in memory at once.
        kept_uids: users of machines whose journal cannot be read; they are nobody else's.
    """

    settings: Settings
    places: Places
    driver: Driver
    network: Network
    templates: Templates
    warm: Warm
    clock: Clock
    admission: Admission
    reports: Reports
    ops: Ops
    capabilities: Capabilities
    first_uid: int
    meters: Meters
    tracing: Tracing = OFF
    taking_over: bool = False
    stopping: bool = False
    actors: dict[str, Actor] = field(default_factory=dict)
    pins: dict[str, int] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=Outputs)
    kept_uids: set[int] = field(default_factory=set)
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    def actor(self, sandbox_id: str) -> Actor:
        """The actor of a sandbox.

        Raises:
            NotFound: this host does not know it.
        """
        found = self.actors.get(sandbox_id)
        if found is None:
            raise NotFound(f"this host knows no sandbox {sandbox_id}")
        return found

    @property
    def headroom_bytes(self) -> int:
        """What stays free on the disk, whatever is copied."""
        return self.settings.disk_headroom_mb * MB

    def free_uid(self) -> int:
        """A user id that no living sandbox of this install has, and that nothing runs as."""
        taken = {uid for actor in self.actors.values() for uid in actor.uids()} | self.kept_uids
        mine = range(self.first_uid, self.first_uid + SANDBOX_UIDS)
        return next(uid for uid in mine if uid not in taken and self.driver.vacant(uid))

    def later(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do something off the path of an act; a failure is logged and hurts nobody."""
        task = asyncio.create_task(work, name=what)
        self._background.add(task)
        task.add_done_callback(self._over)

    async def settle(self) -> None:
        """Cancel what `later` began, and wait until it is over."""
        while self._background:
            for task in self._background:
                task.cancel()
            await asyncio.wait(self._background)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            known = isinstance(failure, RunToolsError)  # which says what happened by itself
            log.warning("%s failed: %s", task.get_name(), failure, exc_info=not known and failure)


def chosen(actors: Iterable[Actor], *states: str) -> list[Actor]:
    """Those in one of the states."""
    return [actor for actor in actors if actor.record.state in states]
