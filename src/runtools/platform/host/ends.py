"""Ends of durable processes: one that is to end is owed until it runs no more, or never will."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from runtools.errors import (
    Conflict,
    GuestUnreachable,
    NotFound,
    ProcessEnded,
    RunToolsError,
    Unavailable,
)
from runtools.platform.core.ids import new_id
from runtools.platform.core.states import Act, State
from runtools.platform.host.disk import room
from runtools.platform.host.engine import durable
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.resume import is_usable
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.running import running, while_running
from runtools.platform.host.silence import stopped, what_happened
from runtools.platform.kit.clock import Backoff

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 0.05
_END_MS: Final = 10_000  # for what was killed
_AT_ONCE: Final = 4
_MOST_TO_END: Final = 1000
_MOST_CALLED_OFF: Final = 1000
_CALLED_OFF: Final = timedelta(days=1)  # as long as requests are remembered, and may be repeated


class Ends:
    """The part of the host port that ends processes."""

    engine: Engine

    @cached_property
    def _ending(self) -> set[str]:
        """The sandboxes for which somebody ends what is to end there."""
        return set()

    async def end_process(self, sandbox_id: str, process_id: str) -> None:
        """End one, begun or not. It is owed first: whatever comes between, it is ended later.

        What cannot be owed is refused only where it cannot be ended at once, or not in what an act
        has captured meanwhile.
        """
        box = self.engine.actor(sandbox_id)
        if box.state is State.STOPPED:
            raise stopped(box)
        refused, before = _owe(box, process_id), box.record.entry.seq
        settled: bool | None = None
        try:
            with box.hold():
                while settled is None and is_usable(box):
                    settled = await while_running(box, self._settled(box, process_id))
        except RunToolsError as exc:
            if refused is None:
                raise
            raise refused from exc
        finally:
            self._end_later(box)
        if settled:
            if refused is not None and (box.record.under_way or box.record.entry.seq != before):
                raise _ended_here_alone(box, process_id, refused) from refused
            return
        if refused is not None:
            raise refused
        try:
            await durable.note(box)
        except OSError as exc:
            raise Unavailable(
                f"the end of process {process_id} of {box.id} is not written through on its host: {exc}; "
                "it may be ended all the same",
                hint=f"ask again; {room.HINT}",
            ) from exc

    def end_owed(self) -> None:
        """End what is to end, once its sandbox goes on: after a start of the host, and in children."""
        for box in self.engine.actors.values():
            self._end_later(box)

    def _end_later(self, box: Actor) -> None:
        if box.record.to_end and box.id not in self._ending:
            self._ending.add(box.id)
            self.engine.later(self._end_awake(box), f"ending processes of {box.id}")

    async def _end_awake(self, box: Actor) -> None:
        """End what is to end in a sandbox whenever it goes on, whoever has that happen.

        What cannot be ended holds up none of the others, and is tried again for as long as it is owed.
        """
        places = asyncio.Semaphore(_AT_ONCE)

        async def tried(process_id: str) -> None:
            async with places:
                try:
                    await while_running(box, self._settled(box, process_id))
                except RunToolsError as exc:
                    log.warning("process %s of %s is not ended yet: %s", process_id, box.id, exc)
                except Exception:
                    # The edge of a loop: whatever one makes fail, all are tried again.
                    log.exception("process %s of %s is not ended yet", process_id, box.id)

        try:
            while box.record.to_end:
                backoff = Backoff(self.engine.clock, first=_AGAIN_SECONDS)
                while is_usable(box) and box.record.to_end:
                    await asyncio.gather(*(tried(one) for one in box.record.to_end))
                    if box.record.to_end:
                        await while_running(box, backoff.wait())
                if box.state is State.STOPPED:
                    return
                if box.record.to_end:
                    await box.changed()
        finally:
            self._ending.discard(box.id)

    async def _settled(self, box: Actor, process_id: str) -> bool | None:
        """Whether it runs no more, or never will: nothing need be owed. None: its sandbox runs no more."""
        async with box.starts.turn(process_id):
            ended = await self._ended(box, process_id)
            if ended is None:
                return None
            if not ended:
                return _called_off(box, process_id)
            _strike_off(box, process_id)
            return True

    async def _ended(self, box: Actor, process_id: str) -> bool | None:
        """End it where it runs; False: it has not begun. None: its sandbox runs no more."""
        guest = await running(box, 0)
        if guest is None:
            return None
        try:
            await guest.processes.signal(process_id, new_id("opn"), signal.SIGKILL)
            over = await guest.processes.wait(process_id, _END_MS)
        except NotFound:
            return False
        except ProcessEnded:
            return True
        except GuestUnreachable as exc:
            if not is_usable(box):
                return None
            raise await what_happened(box, exc) from exc
        if over.state == "running":
            raise Unavailable(f"process {process_id} of {box.id} was killed, and has not ended")
        return True


def _owe(box: Actor, process_id: str) -> RunToolsError | None:
    """Write down that it is to end, also in children on their way: from here on it does not begin.

    Returns what is against that.
    """
    refused = _owe_here(box, process_id)
    for child in _children_on_their_way(box):
        refused = _owe(child, process_id) or refused
    return refused


def _children_on_their_way(box: Actor) -> list[Actor]:
    """Those of a fork under way: what they were captured from had what ends here now."""
    under_way = box.record.under_way
    if under_way is None or under_way.act is not Act.FORK:
        return []
    born = (box.engine.actors.get(one) for one in under_way.things)
    return [one for one in born if one is not None and one.state is not State.STOPPED]


def _owe_here(box: Actor, process_id: str) -> RunToolsError | None:
    owed, now = box.record.to_end, box.record.entry.seq
    if owed.get(process_id) == now:
        return None
    if process_id not in owed and len(owed) >= _MOST_TO_END:
        return Conflict(
            f"{_MOST_TO_END} processes of {box.id} are to end already, once it goes on",
            hint=f"runtools sandbox resume {box.id}: they end then",
        )
    try:
        box.books.note(replace(box.record, to_end=owed | {process_id: now}))
    except OSError as exc:
        return room.refused(f"the end of process {process_id} of {box.id}", exc)
    return None


def _ended_here_alone(box: Actor, process_id: str, refused: RunToolsError) -> RunToolsError:
    return type(refused)(
        f"process {process_id} has ended in {box.id}, but not in what was captured of it meanwhile: "
        f"{refused}",
        hint=f"end it there too, or ask again while that is under way: {refused.hint}",
    )


def _strike_off(box: Actor, process_id: str) -> None:
    """Note that nothing is owed of it any more; where the disk does not take that, all is tried again."""
    if (owed := _without(box, process_id)) != box.record.to_end:
        _is_kept(box, to_end=owed)


def _called_off(box: Actor, process_id: str) -> bool:
    """Whether it is noted that it never begins, for as long as somebody may still ask for that.

    Where as many are noted as are kept it stays owed until there is a place: none is forgotten before.
    """
    now = box.engine.clock.now()
    noted = {one: at for one, at in box.record.called_off.items() if now - at < _CALLED_OFF}
    if process_id not in noted and len(noted) >= _MOST_CALLED_OFF:
        return False
    noted[process_id] = now
    return _is_kept(box, to_end=_without(box, process_id), called_off=noted)


def _without(box: Actor, process_id: str) -> dict[str, int]:
    """What is owed but that; during an act all: what it captures may have what ends here after that."""
    owed = box.record.to_end
    if box.record.under_way is not None:
        return owed
    return {one: at for one, at in owed.items() if one != process_id}


def _is_kept(box: Actor, **changes: Any) -> bool:
    """Whether it is written down now; if not, all is as before."""
    try:
        box.books.note(replace(box.record, **changes))
    except OSError as exc:
        log.warning("what has ended in %s is not journaled yet: %s", box.id, exc)
        return False
    return True
