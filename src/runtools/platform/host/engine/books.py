"""What is written of one sandbox: its journal first, then ledger and reports, which follow from it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.ports.host import CreateOrder, Observed
from runtools.platform.host.disk import room
from runtools.platform.host.engine import journal, ledger
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.journal import Life, Record
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.why import Why
from runtools.platform.kit.clock import Backoff
from runtools.sdk.shapes.sandboxes import LedgerEntry, QueuePlace

log = logging.getLogger(__name__)


class Books:
    """Written by the sandbox's actor alone.

    Attributes:
        record: what the journal says; where the disk did not take that, what it will say.
    """

    def __init__(self, engine: Engine, record: Record) -> None:
        self.record = record
        self._engine = engine
        self._changed = asyncio.Event()
        self._untold: deque[LedgerEntry] = deque()
        self._is_late = False

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self.record.sandbox_id

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._engine.places.sandbox(self.id)

    def commit(self, why: Why, record: Record, **detail: Any) -> Observed:
        """Make a change: the journal first, then the ledger and the report that follow from it."""
        self.note(self._entered(why, record, detail))
        return self._tell()

    def finish(
        self,
        why: Why,
        record: Record,
        result: BaseModel | None = None,
        point: str | None = None,
        **detail: Any,
    ) -> Observed:
        """Commit the end of the act under way; a repeat of it is answered from now on.

        ``result`` is what a repeat is answered, by default the report; ``point`` names the crash
        point between the two.

        Raises:
            OSError: it could not be written; the act is under way as before.
        """
        record = self._entered(why, replace(record, under_way=None), detail)
        self._engine.ops.keep(why.op, why.what, result or self._engine.reports.preview(record))
        if point is not None:
            reach(point)
        try:
            self.note(record)
        except OSError:
            self._engine.ops.withdraw(why.op)
            raise
        return self._tell()

    def owe(self) -> None:
        """Have the ledger be given its last entry with the next report: it could not be."""
        self._untold.append(self.record.entry)

    def _tell(self) -> Observed:
        """Write what follows from the journal.

        It never fails: the change is made. A host that ends before it could be written mends the
        ledger and reports anew at its next start.
        """
        self.owe()
        return self.tell()

    def tell(self) -> Observed:
        """Report how it stands; what the disk refuses now is written later."""
        try:
            self._write_untold()
        except OSError as exc:
            log.error("%s: ledger and report must wait: %s", self.id, exc)
            if not self._is_late:
                self._is_late = True
                self._engine.later(self._tell_later(), f"telling the end of an act of {self.id}")
            return self._engine.reports.preview(self.record)
        return self.latest()

    def _write_untold(self) -> None:
        while self._untold:
            ledger.append(self.folder, self._untold[0])
            self._untold.popleft()
        self.report()
        self._is_late = False

    async def _tell_later(self) -> None:
        backoff = Backoff(self._engine.clock)
        while self._is_late:
            await backoff.wait()
            try:
                self._write_untold()
            except OSError as exc:
                log.error("%s: ledger and report must still wait: %s", self.id, exc)

    def _entered(self, why: Why, record: Record, detail: dict[str, Any]) -> Record:
        """The record with the ledger entry that it makes."""
        entry = LedgerEntry(
            seq=self.record.entry.seq + 1,
            at=self._engine.clock.now(),
            sandbox_id=self.id,
            state=record.state.value,
            operation=record.operation.value if record.operation else None,
            cause=why.cause,
            actor=why.actor,
            detail=detail,
        )
        # What is owed to it is written beside its acts: the record of an act may be older.
        now = self.record
        return replace(record, entry=entry, to_end=now.to_end, called_off=now.called_off)

    def note(self, record: Record) -> None:
        """Journal something that is nobody's business but ours: no ledger entry, no report."""
        journal.save(self.folder, record)
        self.record = record

    def keep_order(self, order: CreateOrder, **more: Any) -> None:
        """Journal what is asked of the sandbox from now on; ``more`` are further fields of the record.

        Raises:
            Unavailable: the disk does not take it; all is as before.
        """
        try:
            self.note(replace(self.record, order=order, **more))
        except OSError as exc:
            raise room.refused(f"the change of {self.id}", exc) from exc

    def keep_life(self, life: Life) -> None:
        """Journal the present machine as it has become."""
        self.note(replace(self.record, life=life))

    def keep_spare(self, life: Life) -> None:
        """Journal the second machine of the act under way as it has become."""
        assert self.record.under_way is not None  # noqa: S101 - only an act makes one
        self.note(replace(self.record, under_way=replace(self.record.under_way, spare=life)))

    def forget_slot(self, slot: Slot) -> None:
        """Know nothing any more of a network that was closed: its number may soon be another's.

        In memory, at once and whatever the disk says; the next write says it too.
        """
        record, under_way = self.record, self.record.under_way
        if record.life is not None and record.life.slot == slot:
            record = replace(record, life=replace(record.life, slot=None))
        if under_way is not None and under_way.spare is not None and under_way.spare.slot == slot:
            spare = replace(under_way.spare, slot=None)
            record = replace(record, under_way=replace(under_way, spare=spare))
        self.record = record

    def latest(self) -> Observed:
        """The newest report; where none could be written yet, what it will say."""
        return self._engine.reports.latest(self.id) or self._engine.reports.preview(self.record)

    def report(self, queue: QueuePlace | None = None) -> Observed:
        """Tell the followers how it stands."""
        seen = self._engine.reports.publish(self.record, queue)
        self.wake()
        return seen

    def wake(self) -> None:
        """Have those look again who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait for the next report."""
        await self._changed.wait()
