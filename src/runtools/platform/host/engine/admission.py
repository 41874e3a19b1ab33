"""Who may take memory on this host: tickets, and a fair queue for those who must wait.

A sandbox holds a ticket while its machine takes memory: from before anything of it is started until
it is paused or gone. Waiters are served strictly in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runtools.errors import CapacityExhausted, HostUnavailable
from runtools.platform.host.engine.budget import (
    DISK,
    MB,
    Budget,
    Load,
    Refusal,
    disk_refusal,
    estimate,
    never,
    refusal,
    waits,
)
from runtools.platform.kit.clock import Clock
from runtools.sdk.shapes.sandboxes import QueuePlace

log = logging.getLogger(__name__)

MAX_WAITING = 1000
_REMEMBERED_HOLDS = 64


@dataclass(slots=True)
class _Waiter:
    who: str
    ask: Load
    turn: asyncio.Future[None]
    tell: Callable[[QueuePlace], None]
    place: QueuePlace | None = None


class Admission:
    """Tickets and the queue of one host."""

    def __init__(self, budget: Budget, free_disk: Callable[[], int], clock: Clock) -> None:
        """``free_disk`` says how many bytes are free where the host keeps its files."""
        self._budget = budget
        self._free_disk = free_disk
        self._clock = clock
        self._tickets: dict[str, tuple[Load, float]] = {}
        self._queue: deque[_Waiter] = deque()
        self._holds: deque[float] = deque(maxlen=_REMEMBERED_HOLDS)
        self._reserved_mb = 0.0
        self._closed = False

    @property
    def taken(self) -> Load:
        """All that the ticket holders are counted as."""
        total = Load()
        for load, _ in self._tickets.values():
            total = total.plus(load)
        return total

    @property
    def tickets(self) -> dict[str, Load]:
        """What each ticket holder is counted as."""
        return {who: load for who, (load, _) in self._tickets.items()}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @property
    def budget(self) -> Budget:
        """What there is."""
        return self._budget

    def check(self, ask: Load, *, queue: bool) -> None:
        """Refuse now what would be refused later.

        Raises:
            CapacityExhausted: it can never fit, or not now and waiting is not wanted.
        """
        impossible = never(self._budget, ask) or (None if queue else self._turned_away(ask))
        if impossible is not None:
            raise _exhausted(impossible)

    def close(self) -> None:
        """Let nobody in any more; those who wait are cancelled."""
        self._closed = True
        for waiter in self._queue:
            waiter.turn.cancel()

    def adopt(self, who: str, ask: Load) -> None:
        """Give a ticket to one that runs already."""
        self._tickets[who] = (ask, self._clock.monotonic())

    def enter_now(self, who: str, ask: Load) -> None:
        """Take a ticket at once.

        Raises:
            CapacityExhausted: there is no room now, or others wait for it already.
        """
        if who in self._tickets:
            return
        lacking = self._turned_away(ask)
        if lacking is not None:
            raise _exhausted(lacking)
        self.adopt(who, ask)

    def enter_all_now(self, who: list[str], each: Load) -> None:
        """Take a ticket for each of them at once, or for none.

        Raises:
            CapacityExhausted: there is no room for all of them now, or others wait for it already.
        """
        lacking = self._turned_away(Load(each.memory_mb * len(who), each.sandboxes * len(who)))
        if lacking is not None:
            raise _exhausted(lacking)
        for one in who:
            self.adopt(one, each)

    def need_disk(self, megabytes: float) -> None:
        """Make sure that so much can be written beside what the running may still have to write.

        Raises:
            CapacityExhausted: the disk would come too close to full.
        """
        lacking = disk_refusal(self._budget, self.taken, self._free_mb(), megabytes)
        if lacking is not None:
            raise _exhausted(lacking)

    @contextlib.contextmanager
    def reserve(self, megabytes: float) -> Iterator[None]:
        """Hold so much disk for what is about to be written, until it has been.

        Raises:
            CapacityExhausted: the disk would come too close to full.
        """
        self.need_disk(megabytes)
        self._reserved_mb += megabytes
        try:
            yield
        finally:
            self._reserved_mb -= megabytes
            self.kick()

    async def enter(self, who: str, ask: Load, tell: Callable[[QueuePlace], None]) -> None:
        """Take a ticket, waiting for it if need be; ``tell`` hears of every change of place.

        Raises:
            CapacityExhausted: it would not fit on the empty host, or too many wait.
        """
        if who in self._tickets:
            return
        if self._closed:
            raise HostUnavailable("the platform is going down", hint="try again when it is up")
        self.check(ask, queue=True)
        if not self._queue and self._lacking(ask) is None:
            self.adopt(who, ask)
            return
        if len(self._queue) >= MAX_WAITING:
            raise _exhausted(Refusal("places in the queue", 1, 0, "try again later"))
        waiter = _Waiter(who, ask, asyncio.get_running_loop().create_future(), tell)
        try:
            self._queue.append(waiter)
            self._announce()
            await waiter.turn
        except BaseException:
            if waiter in self._queue:
                self._queue.remove(waiter)
                self.kick()
            else:
                self.leave(who)  # its turn came while it was being cancelled
            raise

    def withdraw(self, who: str, told: Exception) -> None:
        """Have one wait no more, and be told so; one that does not wait is no error."""
        for waiter in self._queue:
            if waiter.who == who and not waiter.turn.done():
                waiter.turn.set_exception(told)

    def lacking(self, who: str) -> Refusal | None:
        """What there is not enough of for one that waits; None: it does not."""
        for ahead, waiter in enumerate(self._queue):
            if waiter.who == who:
                lacking = self._lacking(waiter.ask)
                return lacking or waits(self._budget, self.taken, waiter.ask, ahead)
        return None

    def leave(self, who: str) -> None:
        """Give a ticket back; one that has none is no error."""
        ticket = self._tickets.pop(who, None)
        if ticket is not None:
            self._holds.append(max(0.0, self._clock.monotonic() - ticket[1]))
            self.kick()

    def kick(self) -> None:
        """Let in who fits now, in order; called whenever room may have come."""
        while self._queue and not self._closed:
            waiter = self._queue[0]
            if waiter.turn.done():  # it does not want it any more
                self._queue.popleft()
            elif self._lacking(waiter.ask) is None:
                self._queue.popleft()
                self.adopt(waiter.who, waiter.ask)
                waiter.turn.set_result(None)
            else:
                break
        self._announce()

    def _lacking(self, ask: Load) -> Refusal | None:
        return refusal(self._budget, self.taken, self._free_mb(), ask)

    def _turned_away(self, ask: Load) -> Refusal | None:
        """Why somebody who will not wait cannot come in."""
        lacking = self._lacking(ask)
        if self._queue:
            return lacking or waits(self._budget, self.taken, ask, len(self._queue))
        return lacking

    def _free_mb(self) -> float:
        return self._free_disk() / MB - self._reserved_mb

    def _announce(self) -> None:
        lacking = self._lacking(self._queue[0].ask) if self._queue else None
        # How long places are held says nothing of when there will be disk.
        holds = () if lacking is not None and lacking.what == DISK else self._holds
        for number, waiter in enumerate(self._queue, start=1):
            wait = estimate(number, holds, len(self._tickets))
            place = QueuePlace(
                position=number, estimated_wait_seconds=None if wait is None else round(wait, 1)
            )
            if waiter.place == place:
                continue
            try:
                waiter.tell(place)
            except OSError as exc:
                # Told at the next look. Whoever has made room meanwhile is not to suffer for it.
                log.warning("%s is not told its place in the queue yet: %s", waiter.who, exc)
            else:
                waiter.place = place


def _exhausted(lacking: Refusal) -> CapacityExhausted:
    ahead = f"others wait for room already ({lacking.ahead})" if lacking.ahead else "no room"
    return CapacityExhausted(
        f"{ahead}: {lacking.words}",
        hint=lacking.hint,
        details=lacking.details,
    )
