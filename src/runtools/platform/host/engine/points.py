"""The named points at which a host can be made to kill itself; tests go through all of them.

Each lies between two steps that are not one on the disk. `docs/engine.md` says what a restart makes
of each.
"""

from __future__ import annotations

from runtools.platform.kit.crash import crash_point

# What each machine that is brought up goes through, whichever act it is for.
_MACHINE = (
    "disk",  # an overlay, and perhaps a namespace that no journal names yet
    "network",  # both are there, the journal knows of neither
    "furnished",  # the journal knows, no VMM
    "started",  # a VMM runs, nobody has spoken to it
    "renewed",  # it has its identity, the journal does not know
)


def _machine(act: str) -> tuple[str, ...]:
    return tuple(f"{act}.{step}" for step in _MACHINE)


CRASH_POINTS: tuple[str, ...] = (
    "create.journaled",  # the record is there, nothing else
    "create.admitted",
    *_machine("create"),
    "create.reported",
    "pause.begun",
    "pause.saved",  # the state is complete, the VMM gone, the journal says pausing
    "pause.journaled",
    "resume.begun",
    "resume.network",
    "resume.started",  # the saved state is used up
    "resume.renewed",
    "resume.reported",
    "snapshot.begun",
    "snapshot.still",  # while the guest stands still
    "snapshot.captured",
    "snapshot.kept",  # it has its final name, the journal says snapshotting
    "rollback.begun",
    *_machine("rollback"),  # two machines run
    "rollback.switched",  # the journal names the new one, the old one runs still
    "rollback.dropped",
    "fork.begun",
    "fork.still",
    "fork.captured",
    *_machine("child"),
    "fork.child",  # a child runs, others do not
    "fork.children",
    "fork.kept",  # the result is written down, the journal says forking
    "destroy.begun",
    "destroy.killed",
    "destroy.removed",
    "end.seen",  # a VMM died by itself
    "end.cleared",
)

_KNOWN = frozenset(CRASH_POINTS)


def reach(name: str) -> None:
    """Die here if a test wants it. A name that is not in the table is a mistake of ours."""
    assert name in _KNOWN, name  # noqa: S101 - a typo here would make a test empty
    crash_point(name)
