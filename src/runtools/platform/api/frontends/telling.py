"""What every teller of a run does alike: one payload after another, in steps of a turn each. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from typing import Any

from runtools.platform.api.frontends.speech import Change, Speech
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.runs import PAYLOADS, RunEvent

Piece = dict[str, Any]


class Teller(ABC):
    """Tells of a run in a front end's words, from wherever in the log it begins.

    Each has a method for each type of event: ``_on_text_delta`` and so on.
    """

    def __init__(self) -> None:
        self._speech = Speech()
        self._step: int | None = None
        self._carried_out: frozenset[str] = frozenset()

    @abstractmethod
    def begin(self) -> Iterator[Piece]:
        """What every stream begins with."""

    @abstractmethod
    def pause(self) -> Iterator[Piece]:
        """The run waits for approvals, or for what the front end carries out, and the stream ends here."""

    def of(self, event: RunEvent) -> Iterator[Piece]:
        """What an event is for a front end; nothing, for some."""
        tell: Callable[[Shape], Iterator[Piece]] = getattr(
            self, f"_on_{event.type.replace('-', '_')}"
        )
        yield from tell(PAYLOADS[event.type].model_validate(event.data))

    def know(self, carried_out: Collection[str]) -> None:
        """Which of its calls the front end has carried out already: it is not to do so again."""
        self._carried_out = frozenset(carried_out)

    @abstractmethod
    def recall(self, event: RunEvent) -> None:
        """What was asked before the stream begins and is not answered: it is not told again."""

    @abstractmethod
    def _part(self, change: Change) -> Iterator[Piece]:
        """A part of what is said opens, grows or closes."""

    @abstractmethod
    def _step_begins(self, turn: int) -> Piece: ...

    @abstractmethod
    def _step_ends(self, turn: int) -> Piece: ...

    def _say(self, changes: list[Change]) -> Iterator[Piece]:
        for change in changes:
            yield from self._part(change)

    def _in_step(self, turn: int) -> Iterator[Piece]:
        if self._step is not None and turn <= self._step:
            return
        yield from self._close()
        self._step = turn
        yield self._step_begins(turn)

    def _close(self) -> Iterator[Piece]:
        """Nothing is open any more."""
        yield from self._say(self._speech.close())
        if self._step is not None:
            yield self._step_ends(self._step)
