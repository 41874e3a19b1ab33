"""A worker: takes runs that it is offered, as many as it has slots, and lets go of them when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from runtools.errors import RunToolsError
from runtools.platform.agents.drive import Drive, failure
from runtools.platform.agents.held import Means
from runtools.platform.agents.link import LinkLost
from runtools.platform.agents.reins import Reins
from runtools.platform.core.ports.worker import Offer, Poke

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0
"""Before a run is given back with which something went wrong: the next one may fare no better."""
_LONGEST_PAUSE = 30.0


@dataclass(slots=True)
class _Job:
    drive: Drive
    lease: int
    task: asyncio.Task[None]


class Worker:
    """Drives runs over one link.

    Args:
        slots: how many runs at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._jobs: dict[str, _Job] = {}
        self._offers: dict[str, Offer] = {}  # by run: the latest of each, the oldest first
        self._means: Means | None = None
        self._ending = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def runs(self) -> int:
        """How many it drives."""
        return len(self._jobs)

    @property
    def drives(self) -> dict[str, int]:
        """Those that it has made ready and is at work on, each with its lease."""
        return {run_id: job.lease for run_id, job in self._jobs.items() if job.drive.goes_on}

    def begin(self, means: Means) -> None:
        """There is a link: take what is offered."""
        self._means = means
        self._fill()

    def told(self, word: Offer | Poke) -> None:
        """The api has said something."""
        if isinstance(word, Poke):
            job = self._jobs.get(word.run_id)
            if job is not None:
                job.drive.poke()
            return
        self._take_up(word)

    async def drain(self, seconds: float) -> None:
        """Take nothing more. Answers under way may end in that time, all else is left where it is."""
        self._ending = True
        self._offers.clear()
        for job in self._jobs.values():
            job.drive.leave(at_once=False)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            await self.abandon()

    async def abandon(self) -> None:
        """Leave every run as it is, at once."""
        self._means = None
        self._offers.clear()
        tasks = [job.task for job in self._jobs.values()]
        for job in self._jobs.values():
            job.drive.leave(at_once=True)
            job.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fill(self) -> None:
        while self._means is not None and self._offers and len(self._jobs) < self._slots:
            if self._ending:
                return
            offer = self._offers.pop(next(iter(self._offers)))
            before = self._jobs.get(offer.run_id)
            if before is not None:
                if offer.lease > before.lease:
                    # It is somebody else's by now, or was woken before we were done.
                    before.drive.leave(at_once=True)
                    before.task.add_done_callback(partial(self._again, offer))
                continue  # said again, for we took our time: it is this one's already
            drive = Drive(self._means, offer.run_id, offer.lease, Reins())
            task = asyncio.create_task(self._run(self._means, drive, offer))
            self._jobs[offer.run_id] = _Job(drive, offer.lease, task)
            self._idle.clear()

    def _again(self, offer: Offer, _: object) -> None:
        self._take_up(offer)

    def _take_up(self, offer: Offer) -> None:
        known = self._offers.get(offer.run_id)
        if known is None or known.lease < offer.lease:
            self._offers[offer.run_id] = offer
        self._fill()

    async def _run(self, means: Means, drive: Drive, offer: Offer) -> None:
        try:
            if not await _driven(means, drive, offer):
                await _give_back(means, drive, offer, lambda: self._ending)
        finally:
            self._jobs.pop(offer.run_id, None)
            if not self._jobs:
                self._idle.set()
            self._fill()


async def _driven(means: Means, drive: Drive, offer: Offer) -> bool:
    """Drive a run; False: it is neither at its end nor waiting for anybody, and was left."""
    try:
        return await drive.go()
    except LinkLost as lost:
        log.info("run %s is left: %s", offer.run_id, lost)
        return False
    except RunToolsError as error:
        log.warning("run %s: %s", offer.run_id, error.message)
        return await failure(means, offer.run_id, offer.lease, error)
    except Exception as error:
        # The edge of one run: it ends with what went wrong, and the others go on.
        log.exception("run %s", offer.run_id)
        return await failure(means, offer.run_id, offer.lease, error)


async def _give_back(means: Means, drive: Drive, offer: Offer, ending: Callable[[], bool]) -> None:
    """Have a run that was left offered anew. Nobody takes it from a worker that is connected and well."""
    pause = _PAUSE_SECONDS
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await drive.leaving.wait()
        try:
            await means.link.release(offer.run_id, offer.lease, ending=ending())
        except LinkLost:
            return  # it is another's already, or this worker is gone
        except RunToolsError as error:
            log.warning("run %s cannot be given back: %s", offer.run_id, error.message)
            if drive.leaving.is_set():
                return  # the connection ends next, and says it
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            return
