"""What a client knows must be so: every sandbox's state, and what is inside each.

Inside are a process that must go on living, and lines in a file, one for each command that was run.
An act changes the model when its answer has come; one without an answer is asked again with the same
op, and its answer then must be what it would have been the first time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal[
    "create", "mark", "line", "pause", "resume", "snapshot", "rollback", "fork", "destroy"
]


@dataclass(frozen=True)
class Inside:
    """What must be found in a sandbox.

    Attributes:
        process: the pid, inside, of a process that must live; None when there is none (yet).
        lines: what must stand in ``/root/log``, each once.
    """

    process: str | None = None
    lines: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Act:
    """One call: repeated, it carries the same op.

    Attributes:
        things: the ids of what it makes or goes back to.
    """

    kind: Kind
    box: str
    op: str
    things: tuple[str, ...] = ()


@dataclass
class Box:
    """One sandbox; ``keeps_disk`` when it ended by itself."""

    id: str
    state: Literal["running", "paused", "stopped"] = "running"
    inside: Inside = field(default_factory=Inside)
    snapshots: dict[str, Inside] = field(default_factory=dict)
    keeps_disk: bool = False


class Model:
    """All sandboxes of one host.

    Args:
        memory_survives: whether processes go on in copies (forks, rollbacks), as in real machines.
    """

    def __init__(self, *, memory_survives: bool) -> None:
        self.boxes: dict[str, Box] = {}
        self._memory_survives = memory_survives

    def living(self) -> list[Box]:
        """Those that have not been destroyed."""
        return [box for box in self.boxes.values() if box.state != "stopped"]

    def snapshots(self) -> set[str]:
        """Every snapshot that is kept."""
        return {one for box in self.living() for one in box.snapshots}

    def done(self, act: Act, answer: str = "") -> None:
        """An act was answered; ``answer`` is what a command printed."""
        if act.kind == "create":
            self.boxes[act.box] = Box(act.box)
            return
        box = self.boxes[act.box]
        if act.kind in {"mark", "line"}:
            box.state = "running"
        if act.kind == "mark":
            box.inside = replace(box.inside, process=answer)
        elif act.kind == "line":
            box.inside = replace(box.inside, lines=box.inside.lines | {act.op})
        elif act.kind == "snapshot":
            box.snapshots[act.things[0]] = self.copied(box.inside)
        elif act.kind == "rollback":
            box.inside = box.snapshots[act.things[0]]
        elif act.kind == "pause":
            box.state = "paused"
        elif act.kind == "resume":
            box.state = "running"
        elif act.kind == "destroy":
            box.state, box.snapshots, box.keeps_disk = "stopped", {}, False

    def died(self, box_id: str) -> None:
        """Its machine ended by itself."""
        self.boxes[box_id].state = "stopped"
        self.boxes[box_id].keeps_disk = True

    def born(self, parent: str, child: str, *, lives: bool) -> None:
        """A fork made a child, or one that came to nothing."""
        inside = self.copied(self.boxes[parent].inside)
        self.boxes[child] = Box(child, "running" if lives else "stopped", inside)

    def copied(self, inside: Inside) -> Inside:
        """What is inside a copy."""
        return inside if self._memory_survives else replace(inside, process=None)
