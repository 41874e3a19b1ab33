"""The states of a run and the moves that are legal between them, as one table.

    queued ─take▶ running ─wait▶ waiting ─wake▶ queued
       ▲             │ ▲ └──finish──▶ completed failed cancelled limit_reached
       └───requeue───┘

``queued``: nobody drives it; also one that was under way when its worker went, or that was woken.
``waiting``: for
a person, and nobody drives it meanwhile. What has ended stays so. Queued and waiting runs are ended by the
api alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runtools.errors import RunEnded, RunIllegalMove

OUTPUT_TOOL = "final_answer"
"""What a run calls that is to end with a result in a form."""


def trace_of(run_id: str) -> str:
    """The place in a trace (``traceparent``) below which what is done for a run belongs."""
    digest = hashlib.sha256(run_id.encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


class Status(StrEnum):
    """How a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LIMIT_REACHED = "limit_reached"


class Move(StrEnum):
    """What happens to a run."""

    TAKE = "take"
    WAIT = "wait"
    WAKE = "wake"
    REQUEUE = "requeue"
    FINISH = "finish"
    DROP = "drop"


ENDS = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.LIMIT_REACHED})
OPEN = frozenset(Status) - ENDS


@dataclass(frozen=True, slots=True)
class Rule:
    """From which states a move is legal, and where it may lead."""

    frm: frozenset[Status]
    to: frozenset[Status]


MOVES: Mapping[Move, Rule] = {
    Move.TAKE: Rule(frozenset({Status.QUEUED}), frozenset({Status.RUNNING})),
    Move.WAIT: Rule(frozenset({Status.RUNNING}), frozenset({Status.WAITING})),
    Move.WAKE: Rule(frozenset({Status.WAITING}), frozenset({Status.QUEUED})),
    Move.REQUEUE: Rule(frozenset({Status.RUNNING}), frozenset({Status.QUEUED})),
    Move.FINISH: Rule(frozenset({Status.RUNNING}), ENDS),
    # Nobody drives it, so the api writes its end.
    Move.DROP: Rule(
        frozenset({Status.QUEUED, Status.WAITING}), frozenset({Status.CANCELLED, Status.FAILED})
    ),
}


def check(move: Move, status: str, run_id: str, to: str | None = None) -> Status:
    """Where the move leads from that state: to the only one there is, or to the one that is wanted.

    Raises:
        RunEnded: the run has ended.
        RunIllegalMove: the move is not legal from there, or does not lead where it is wanted to.
    """
    rule, now = MOVES[move], Status(status)
    if now in ENDS:
        raise ended(run_id, status)
    led = rule.to if to is None else rule.to & {Status(to)}
    if now not in rule.frm or len(led) != 1:
        raise RunIllegalMove(
            f"cannot {move} {run_id}: it is {status}",
            hint=f"{move} is legal when a run is {' or '.join(sorted(rule.frm))}",
            details={"status": status, "move": move, "legalFrom": sorted(rule.frm)},
        )
    return next(iter(led))


def process_of(run_id: str, turn: int, index: int) -> str:
    """What the command of a call is called in the sandbox, by the call's place among those of its turn."""
    return f"{run_id}.{turn}.{index}"


def command_of(
    run_id: str, turn: int, index: int, tool: str, given: Mapping[str, Any]
) -> str | None:
    """The same, of a call of any tool; None: it runs no command, or comes back to one of another call."""
    if tool != "bash" or given.get("process_id") is not None:
        return None
    return process_of(run_id, turn, index)


def servers_of(run_id: str) -> str:
    """How the names of the processes in the sandbox begin that are a run's own servers of tools."""
    return f"mcp.{run_id}."


def ended(run_id: str, status: str) -> RunEnded:
    """What is said to who wants something of a run that is over."""
    return RunEnded(
        f"{run_id} has ended: {status}",
        hint="its thread goes on with another run: pass its threadId to POST /v1/run",
        details={"status": status},
    )
