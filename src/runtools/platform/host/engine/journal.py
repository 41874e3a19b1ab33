"""The journal: one record per sandbox, replaced as a whole at every step.

The record is the commit point of everything that happens to a sandbox. It carries the latest ledger
entry, so that a crash between the journal and the ledger loses none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.ports.host import CreateOrder, Guest, Observed
from runtools.platform.core.states import MOVES, Act, Operation, State
from runtools.platform.host.engine.places import JOURNAL
from runtools.platform.kit.files import write_atomic
from runtools.sdk.shapes.sandboxes import Ending, Isolation, LedgerEntry, StartedFrom, Timings


@dataclass(frozen=True, slots=True)
class Life:
    """One machine of a sandbox. A rollback begins a new one beside the old and then swaps them.

    Attributes:
        number: names its folder.
        uid: who its VMM runs as; nobody else's while the sandbox lives.
        slot: its network; None while it has none (a long pause, a reboot).
        token: what its guest agent asks of callers.
    """

    number: int
    uid: int
    slot: Slot | None
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An act that was begun and has not ended: what a restarted host must finish or undo.

    Attributes:
        op, what: the id by which a repeat is known, and what it was used for.
        queued: it waits for room and has touched nothing yet.
        spare: a second machine that is being made (rollback).
        things: what it makes (ids of children, of a snapshot), or how far it is.
        standstill_ms: how long the guest stood still for it, once that is known.
    """

    act: Act
    op: str
    actor: str
    what: str = ""
    queued: bool = False
    spare: Life | None = None
    things: tuple[str, ...] = ()
    standstill_ms: float = 0.0


def _since_long(given: object) -> object:
    """Earlier journals have a list: when was not written down."""
    return dict.fromkeys(given, 0) if isinstance(given, list) else given


@dataclass(frozen=True, slots=True)
class Record:
    """All that the host knows of one sandbox.

    Attributes:
        to_end: processes that are to end once it goes on; none of them begins. With the number of the
            ledger's entry after which that was last asked for, 0 where it comes from a saved state.
        called_off: processes that do not begin any more, though the guest knows none of them; since when.
    """

    sandbox_id: str
    order: CreateOrder
    state: State
    entry: LedgerEntry
    created_at: datetime
    parent_id: str | None = None
    under_way: UnderWay | None = None
    life: Life | None = None
    lives: int = 0
    attempts: int = 0
    started_from: StartedFrom | None = None
    isolation: Isolation | None = None
    timings: Timings | None = None
    durable: bool = True
    fingerprint: dict[str, str] | None = None
    ending: Ending | None = None
    destroyed: bool = False
    running_since: datetime | None = None
    paused_at: datetime | None = None
    stopped_at: datetime | None = None
    egress_generation: int = 0
    to_end: Annotated[dict[str, int], BeforeValidator(_since_long)] = field(default_factory=dict)
    called_off: dict[str, datetime] = field(default_factory=dict)

    @property
    def operation(self) -> Operation | None:
        """How the act under way is shown."""
        if self.under_way is None:
            return None
        return Operation.QUEUED if self.under_way.queued else MOVES[self.under_way.act].operation

    def is_called_off(self, process_id: str) -> bool:
        """Whether a process does not begin any more."""
        return process_id in self.to_end or process_id in self.called_off

    @property
    def keeps_disk(self) -> bool:
        """Whether an ended sandbox can be recovered from its disk."""
        return self.state is State.STOPPED and self.life is not None and not self.destroyed

    def without_secrets(self) -> CreateOrder:
        """The order of one whose machine is gone for good: nobody needs its environment any more."""
        return self.order.model_copy(update={"guest": Guest()})

    def observed(self, epoch: int, seq: int) -> Observed:
        """The report of it. `ledger` in its detail numbers the ledger entry it stands on."""
        entry = self.entry
        return Observed(
            sandbox_id=self.sandbox_id,
            epoch=epoch,
            seq=seq,
            at=entry.at,
            state=self.state.value,
            operation=self.operation.value if self.operation else None,
            cause=entry.cause,
            actor=entry.actor,
            isolation=self.isolation,
            started_from=self.started_from,
            timings=self.timings,
            durable=self.durable,
            ending=self.ending,
            detail={**entry.detail, "ledger": entry.seq},
        )


class JournalUnreadable(Exception):
    """A journal that is no record; its folder is left as it is, for a person to look at."""


_RECORD = TypeAdapter(Record)


def save(folder: Path, record: Record, *, durable: bool = False) -> None:
    """Replace the record. ``durable`` makes it outlive a power loss as well as a crash."""
    # by_alias False: stored by the names of this code, not by those of the wire
    data = _RECORD.dump_json(record, by_alias=False)
    write_atomic(folder / JOURNAL, data, durable=durable)


def load(folder: Path) -> Record | None:
    """The record of a sandbox's folder; None where nothing was journaled yet.

    Raises:
        JournalUnreadable: there is a file, but no record in it.
    """
    try:
        data = (folder / JOURNAL).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return _RECORD.validate_json(data)
    except ValidationError as exc:
        raise JournalUnreadable(f"{folder / JOURNAL}: {exc.error_count()} faults") from exc
