"""Records and orders for tests of the engine's books."""

from __future__ import annotations

from datetime import UTC, datetime

from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.ports.host import CreateOrder, Guest, Sizes
from runtools.platform.core.states import Act, State
from runtools.platform.host.engine.journal import Life, Record, UnderWay
from runtools.sdk.shapes.sandboxes import LedgerEntry

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def order(sandbox_id="sandbox-aaaaaaaaaaaa", **changes):
    fields = {
        "op": "op-1",
        "sandbox_id": sandbox_id,
        "actor": "key_1",
        "template_version_id": "tpl_1",
        "sizes": Sizes(vcpus=2, memory_mb=1024, disk_mb=2048),
        "guest": Guest(env={"TOKEN": "hidden"}, password_hash="$6$x"),
        "internet": True,
        "idle_timeout_seconds": 600,
        "max_lifetime_seconds": None,
        "require_isolation": None,
        "queue": True,
    }
    return CreateOrder(**{**fields, **changes})


def entry(seq=1, sandbox_id="sandbox-aaaaaaaaaaaa"):
    return LedgerEntry(
        seq=seq,
        at=NOW,
        sandbox_id=sandbox_id,
        state="running",
        operation=None,
        cause="request",
        actor="key_1",
        detail={"n": seq},
    )


def record(sandbox_id="sandbox-aaaaaaaaaaaa", **changes):
    fields = {
        "sandbox_id": sandbox_id,
        "order": order(sandbox_id),
        "state": State.RUNNING,
        "entry": entry(sandbox_id=sandbox_id),
        "created_at": NOW,
        "life": Life(1, 4711, Slot("rt-x-1", "tap0", 1), "token"),
        "under_way": UnderWay(Act.FORK, "op-2", "key_1", "fork it", things=("a", "b")),
    }
    return Record(**{**fields, **changes})
