"""How long a guest is waited for, in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits on waiting; a machine under emulation, with thirty others beside it, is slow.

    Attributes:
        hello: for a connection to be made and greeted.
        op: for an answer that needs no long work.
        long: for one that may touch gigabytes: copying, moving, removing.
        grace: beyond a command's own timeout.
        output: for what a command that is over has printed, beyond the time that its size takes.
        stall: for the next piece of a stream, or for room to send one.
        quiet: for more of a stream that may be silent for ever, before its agent is asked if it is there.
        away: how long an agent may be unreachable before that is the answer.
        held: a connection that lived so long was no failed attempt.
    """

    hello: float = 30.0
    op: float = 60.0
    long: float = 3600.0
    grace: float = 30.0
    output: float = 20.0
    stall: float = 60.0
    quiet: float = 60.0
    away: float = 20.0
    held: float = 5.0
