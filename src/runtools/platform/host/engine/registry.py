"""Taking a sandbox into the books: its folder, its first journal entry, its actor."""

from __future__ import annotations

from runtools.platform.core.ports.host import CreateOrder
from runtools.platform.core.states import Act, Operation, State
from runtools.platform.host.disk import room
from runtools.platform.host.disk.trees import remove
from runtools.platform.host.engine import journal, ledger
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.end import died
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.journal import Life, Record, UnderWay
from runtools.platform.host.engine.places import make_folder
from runtools.platform.host.engine.points import reach
from runtools.platform.host.engine.why import Why
from runtools.sdk.shapes.sandboxes import LedgerEntry


def enroll(
    engine: Engine,
    order: CreateOrder,
    why: Why,
    *,
    parent: Record | None = None,
) -> Actor:
    """A new sandbox in state `creating`, journaled before anything of it is started.

    What is to end in its ``parent``, or is called off there, is so in it.

    Raises:
        Unavailable: the disk does not take that; nothing of it is left.
    """
    now = engine.clock.now()
    entry = LedgerEntry(
        seq=1,
        at=now,
        sandbox_id=order.sandbox_id,
        state=State.CREATING.value,
        operation=Operation.STARTING.value,
        cause=why.cause,
        actor=why.actor,
        detail={"parent": parent.sandbox_id} if parent else {},
    )
    record = Record(
        sandbox_id=order.sandbox_id,
        order=order,
        state=State.CREATING,
        entry=entry,
        created_at=now,
        parent_id=parent.sandbox_id if parent else None,
        under_way=UnderWay(Act.CREATE, why.op, why.actor, why.what),
        life=Life(number=1, uid=engine.free_uid(), slot=None, token=""),
        lives=1,
        attempts=1,
        to_end=dict.fromkeys(parent.to_end, 0) if parent else {},
        called_off=parent.called_off if parent else {},
    )
    folder = engine.places.sandbox(order.sandbox_id)
    try:
        make_folder(folder)
        journal.save(folder, record)
        ledger.append(folder, entry)
        box = take_in(engine, record)
        box.books.report()
    except OSError as exc:
        engine.actors.pop(order.sandbox_id, None)
        remove(folder)
        raise room.refused(order.sandbox_id, exc) from exc
    reach("create.journaled")
    return box


def take_in(engine: Engine, record: Record) -> Actor:
    """The actor of a journaled sandbox."""
    box = Actor(engine, record, died)
    engine.actors[record.sandbox_id] = box
    return box
