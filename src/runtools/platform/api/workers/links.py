"""The workers that are connected to this process: what each drives, and what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from runtools.platform.api.runs.look import Written
from runtools.platform.core.ports.worker import SILENT_SECONDS, Answer, Offer, Poke
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.events import ErrorBody

OFFER_SECONDS = 2.0
"""How long a worker is given to take what it was offered, before another one is."""


class Link:
    """One worker's connection.

    Attributes:
        spoke: when it last said anything.
        driving: the runs that it drives, each with its lease.
        taking: those that it is being given at the moment.
        heard: of each of them, the number of the last event that it was told of.
        cancelling: of those that are to be cancelled, since when.
        offers: what it was offered and may take still, and since when.
    """

    def __init__(self, worker_id: str, slots: int, now: float) -> None:
        self.worker_id = worker_id
        self.slots = slots
        self.spoke = now
        self.driving: dict[str, int] = {}
        self.taking: set[str] = set()
        self.heard: dict[str, int] = {}
        self.cancelling: dict[str, float] = {}
        self.offers: dict[str, float] = {}
        self.offered_at = 0.0
        self._out: asyncio.Queue[str] = asyncio.Queue()

    @property
    def load(self) -> float:
        """How full it is: 1 and more have no room."""
        coming = self.taking.union(self.offers).difference(self.driving)
        return (len(self.driving) + len(coming)) / self.slots if self.slots else 1.0

    def is_silent(self, now: float) -> bool:
        """Whether it may stand still, or be out of reach."""
        return now - self.spoke > SILENT_SECONDS

    def drives(self, run_id: str, lease: int, last_seq: int) -> None:
        """A run is its from now on."""
        self.offers.pop(run_id, None)
        self.driving[run_id] = lease
        self.heard[run_id] = last_seq

    def lets_go(self, run_id: str) -> None:
        """A run is its no more."""
        self.driving.pop(run_id, None)
        self.heard.pop(run_id, None)
        self.cancelling.pop(run_id, None)

    def answer(
        self, number: int, ok: Shape | Written | None, error: ErrorBody | None = None
    ) -> None:
        """Answer a frame."""
        if ok is None:
            self._say(Answer(id=number, error=error))
        else:
            # An `Answer` with what is a shape already: a long log is written once, and not checked again.
            said = ok.text if isinstance(ok, Written) else ok.model_dump_json(by_alias=True)
            self._out.put_nowait(f'{{"id":{number},"ok":{said},"error":null}}')

    def offer(self, run_id: str, lease: int) -> None:
        """Offer it a run."""
        self._say(Offer(run_id=run_id, lease=lease))

    def poke(self, run_id: str) -> None:
        """Tell it that there is something to read."""
        self._say(Poke(run_id=run_id))

    async def out(self) -> str:
        """The next frame to be sent."""
        return await self._out.get()

    def _say(self, frame: Shape) -> None:
        self._out.put_nowait(frame.model_dump_json(by_alias=True))


class Workers:
    """All connections of workers to this process."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())

    def __len__(self) -> int:
        return len(self._links)

    def heard(self, now: float) -> list[str]:
        """The ids of those that are connected and have said so just now."""
        return [link.worker_id for link in self._links.values() if not link.is_silent(now)]

    def add(self, link: Link) -> None:
        """A worker has connected; an earlier connection of its is worth nothing any more."""
        self._links[link.worker_id] = link

    def is_latest(self, link: Link) -> bool:
        """Whether its worker has no later connection."""
        return self._links.get(link.worker_id) is link

    def remove(self, link: Link) -> None:
        """A connection is gone."""
        if self.is_latest(link):
            del self._links[link.worker_id]

    def poke(self, run_id: str) -> None:
        """Tell whoever drives a run here that there is something to read."""
        for link in self._links.values():
            if run_id in link.driving:
                link.poke(run_id)

    def let_go(self, run_id: str) -> None:
        """Nobody here drives a run any more."""
        for link in self._links.values():
            link.lets_go(run_id)

    def offer(self, run_id: str, lease: int, now: float) -> bool:
        """Offer a run to a worker that has room for it; False: none has."""
        links = self._links.values()
        for link in links:
            link.offers = {run: at for run, at in link.offers.items() if now - at < OFFER_SECONDS}
        if any(run_id in link.offers or run_id in link.taking for link in links):
            return True
        free = [link for link in links if link.load < 1 and not link.is_silent(now)]
        if not free:
            return False
        # Who has the most room; among those, who was offered something the longest ago.
        chosen = min(free, key=lambda link: (link.load, link.offered_at))
        chosen.offered_at = chosen.offers[run_id] = now
        chosen.offer(run_id, lease)
        return True
