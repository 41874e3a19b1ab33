"""How this host stands, in numbers: what `engine/meters` counts, and what can be read off at any moment."""

from __future__ import annotations

from runtools.platform.core.ports.metrics import Family
from runtools.platform.core.states import State
from runtools.platform.host.disk import files
from runtools.platform.host.engine import memory
from runtools.platform.host.engine.budget import MB
from runtools.platform.host.engine.engine import Engine, chosen
from runtools.platform.kit.metering import gauge
from runtools.sdk.shapes.events import HostView

_STATES = (State.CREATING, State.RUNNING, State.PAUSED)


def figures(engine: Engine, view: HostView) -> list[Family]:
    """All of it."""
    actors, machine = engine.actors.values(), memory.machine()
    root, budget, taken = engine.places.root, engine.admission.budget, engine.admission.taken
    about = {
        "name": view.name,
        "driver": view.driver,
        "accelerator": view.accelerator,
        "isolation": view.isolation,
    }
    return [
        *engine.meters.told(),
        gauge("runtools_host_info", "What it is", (about, 1)),
        gauge(
            "runtools_host_sandboxes",
            "Its sandboxes, by state",
            *(({"state": one.value}, len(chosen(actors, one))) for one in _STATES),
        ),
        gauge(
            "runtools_host_memory_bytes",
            "Memory of the machine",
            ({"kind": "total"}, machine.total),
            ({"kind": "available"}, machine.available),
        ),
        gauge(
            "runtools_host_disk_bytes",
            "The file system of its sandboxes; below the headroom nothing starts",
            ({"kind": "total"}, files.total_bytes(root)),
            ({"kind": "free"}, files.free_bytes(root)),
            ({"kind": "headroom"}, budget.headroom_mb * MB),
        ),
        gauge(
            "runtools_host_admission_memory_bytes",
            "Memory as it is counted for sandboxes",
            ({"kind": "budget"}, budget.memory_mb * MB),
            ({"kind": "taken"}, taken.memory_mb * MB),
        ),
        gauge(
            "runtools_host_admission_sandboxes",
            "Sandboxes as they are counted",
            ({"kind": "budget"}, budget.sandboxes),
            ({"kind": "taken"}, taken.sandboxes),
        ),
        gauge(
            "runtools_host_queue_length",
            "Creates and resumes that wait for room",
            ({}, view.queued),
        ),
    ]
