"""What a model says, as parts that open, grow and close. Pure.

Deltas are live only and may be lost, or repeated by another attempt; the `message` event that follows has
all that was said. A front end wants each word once. What it was shown cannot be taken back, so the parts of
an attempt that broke off are closed as they are, and the next one begins new parts. A part is named by
turn, attempt and place, so that who reads on in another stream does not take it for one of before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from runtools.sdk.shapes.runs import Delta, Message

Kind = Literal["text", "thinking"]
KINDS: tuple[Kind, ...] = ("thinking", "text")


@dataclass(frozen=True, slots=True)
class Opened:
    """A part begins."""

    kind: Kind
    id: str


@dataclass(frozen=True, slots=True)
class Grown:
    """More of a part that is open."""

    kind: Kind
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A part is complete."""

    kind: Kind
    id: str


Change = Opened | Grown | Closed


@dataclass(slots=True)
class Speech:
    """What has been shown of the turn under way."""

    _turn: int = -1
    _attempt: int = 0
    _parts: int = 0
    _said: dict[Kind, str] = field(default_factory=dict)
    _open: Opened | None = None

    def hear(self, kind: Kind, delta: Delta) -> list[Change]:
        """A piece came. One of a turn that is complete, or of an attempt that broke off, is late; one
        before which another is missing waits for the message.
        """
        if (delta.turn, delta.attempt) < (self._turn, self._attempt):
            return []
        changes = self._turn_to(delta.turn, delta.attempt)
        if delta.offset not in (None, len(self._said.get(kind, ""))):
            return changes
        return changes + self._grow(kind, delta.text)

    def settle(self, message: Message) -> list[Change]:
        """All of the turn is known: show what was not shown yet."""
        changes: list[Change] = []
        if message.turn != self._turn:
            changes += self._turn_to(message.turn, 0)
        for kind in KINDS:
            whole = (message.thinking if kind == "thinking" else message.text) or ""
            said = self._said.get(kind, "")
            if not whole.startswith(said):
                # Pieces were lost on the way: it is shown once more, whole.
                changes += self.close()
                said = ""
            if len(whole) > len(said):
                changes += self._grow(kind, whole[len(said) :])
        changes += self.close()
        return changes + self._turn_to(message.turn + 1, 0)

    def close(self) -> list[Change]:
        """Close the part that is open."""
        if self._open is None:
            return []
        part, self._open = self._open, None
        return [Closed(part.kind, part.id)]

    def _turn_to(self, turn: int, attempt: int) -> list[Change]:
        if (turn, attempt) == (self._turn, self._attempt):
            return []
        changes = self.close()
        self._turn, self._attempt, self._parts, self._said = turn, attempt, 0, {}
        return changes

    def _grow(self, kind: Kind, text: str) -> list[Change]:
        changes: list[Change] = []
        if self._open is None or self._open.kind != kind:
            changes += self.close()
            self._parts += 1
            place = f"{self._turn}.{self._attempt}.{self._parts}"
            self._open = Opened(kind, f"{kind}-{place}")
            changes.append(self._open)
        self._said[kind] = self._said.get(kind, "") + text
        changes.append(Grown(kind, self._open.id, text))
        return changes
