"""The states of a sandbox and the moves that are legal between them, as one table.

               create           pause            destroy
      (nothing) ────▶ creating ─▶ running ─▶ paused ────▶ stopped
                          │          ▲ resume  │  ▲          │ recover: a new sandbox from its disk
                          │          └─────────┘  │          ▼
                          └───── failed start ──▶ stopped   (creating)

``recover`` is legal from ``paused``, too. ``snapshot``, ``rollback`` and ``fork`` come back to the state
they left from. A VMM that dies by itself takes ``creating`` and ``running`` to ``stopped``. While an act
is under way the sandbox keeps its state and shows the act as its ``operation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from runtools.errors import IllegalMove, SandboxStopped


class State(StrEnum):
    """What a sandbox is."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Operation(StrEnum):
    """What is being done to a sandbox at the moment."""

    QUEUED = "queued"
    STARTING = "starting"
    PAUSING = "pausing"
    RESUMING = "resuming"
    SNAPSHOTTING = "snapshotting"
    ROLLING_BACK = "rolling_back"
    FORKING = "forking"
    DESTROYING = "destroying"


class Act(StrEnum):
    """What can be asked of a sandbox."""

    CREATE = "create"
    PAUSE = "pause"
    RESUME = "resume"
    SNAPSHOT = "snapshot"
    ROLLBACK = "rollback"
    FORK = "fork"
    DESTROY = "destroy"
    RECOVER = "recover"


@dataclass(frozen=True, slots=True)
class Move:
    """From which states an act is legal, how it shows while under way, and where it ends.

    ``to`` is None where the sandbox keeps the state it had.
    """

    frm: frozenset[State]
    operation: Operation
    to: State | None


def _from(*states: State) -> frozenset[State]:
    return frozenset(states)


MOVES: Mapping[Act, Move] = {
    Act.CREATE: Move(_from(State.CREATING), Operation.STARTING, State.RUNNING),
    Act.PAUSE: Move(_from(State.RUNNING), Operation.PAUSING, State.PAUSED),
    Act.RESUME: Move(_from(State.PAUSED), Operation.RESUMING, State.RUNNING),
    Act.SNAPSHOT: Move(_from(State.RUNNING, State.PAUSED), Operation.SNAPSHOTTING, None),
    Act.ROLLBACK: Move(_from(State.RUNNING, State.PAUSED), Operation.ROLLING_BACK, None),
    Act.FORK: Move(_from(State.RUNNING, State.PAUSED), Operation.FORKING, None),
    Act.DESTROY: Move(
        _from(State.CREATING, State.RUNNING, State.PAUSED), Operation.DESTROYING, State.STOPPED
    ),
    # Recovery makes a new sandbox from the disk of another, which stays as it is: one that has ended,
    # or one that is paused, whose saved state nothing here may be able to load any more.
    Act.RECOVER: Move(_from(State.STOPPED, State.PAUSED), Operation.STARTING, None),
}

# Acts whose result already holds: asking for them again is answered, not refused.
_SETTLED: Mapping[Act, State] = {
    Act.PAUSE: State.PAUSED,
    Act.RESUME: State.RUNNING,
    Act.DESTROY: State.STOPPED,
}


def is_settled(act: Act, state: State) -> bool:
    """Whether the sandbox is already where the act would bring it."""
    return _SETTLED.get(act) == state


def check(act: Act, state: State, sandbox_id: str) -> Move:
    """The move that the act makes from this state.

    Raises:
        SandboxStopped: the sandbox has ended, and the act needs a living one.
        IllegalMove: the act is not legal from the state.
    """
    move = MOVES[act]
    if state in move.frm:
        return move
    if state is State.STOPPED:
        raise SandboxStopped(
            f"cannot {act} {sandbox_id}: it has stopped",
            hint=f"runtools sandbox why {sandbox_id} tells what ended it",
        )
    legal = " or ".join(sorted(move.frm))
    raise IllegalMove(
        f"cannot {act} {sandbox_id}: it is {state}",
        hint=f"{act} is legal when a sandbox is {legal}",
        details={"state": state, "act": act, "legalFrom": sorted(move.frm)},
    )
