"""How large a conversation is, from answer to answer, over all runs of its thread. Pure."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from runtools.platform.core.ports.worker import Logged

CHARACTERS_A_TOKEN = 3
_OF_PICTURE = 1600
"""Tokens: what providers count of a large one, about."""


@dataclass(slots=True)
class Extent:
    """What the logs of a thread say of it, learned in order.

    Attributes:
        tokens: as the last answer counted them; 0: none has since the last compaction.
        floor: those that the first question after that took beside what people said in it: a summary would
            make that shorter, and nothing else of it. 0: nobody counted them, or there was none.
        results: characters that calls have given back since the last answer.
    """

    tokens: int = 0
    floor: int = 0
    results: int = 0
    _run_id: str = ""
    _turn: int = 0
    _is_compacted: bool = False  # and nothing was counted since
    _waiting: list[tuple[int, int]] = field(
        default_factory=list
    )  # what was said: its number, its tokens
    _whole: int = 0  # tokens of what was said, and asked about, since the last compaction

    @property
    def unanswered(self) -> int:
        """Tokens of what people have said in this run and no answer knew, its pictures with it; about."""
        return sum(tokens for _, tokens in self._waiting)

    def learn(self, event: Logged) -> None:
        """Take in the next event."""
        if event.run_id != self._run_id:
            self._run_id, self._turn = event.run_id, 0  # each run counts its turns anew
            self._ask(sys.maxsize)
        data = event.data
        wire = event.wire if isinstance(event.wire, dict) else {}
        match event.type:
            case "message" if data["role"] == "user":
                self._waiting.append((event.seq or 0, _said(data)))
            case "message":
                self._ask(_seen(wire, sys.maxsize))
                if data["turn"] > 0:
                    self._turn, self.results = data["turn"], 0
            case "tool-result":
                self.results += len(data["output"])
            case "usage" if data["turn"] == self._turn:
                self._count(data["inputTokens"], data["outputTokens"])
            case "compaction":
                self.tokens = self.floor = self.results = 0
                self._ask(_seen(wire, 0))
                self._is_compacted, self._whole = True, 0
            case _:
                pass

    def _ask(self, seen: int) -> None:
        """What was said up to there waits no more."""
        self._whole += sum(tokens for seq, tokens in self._waiting if seq <= seen)
        self._waiting = [one for one in self._waiting if one[0] > seen]

    def _count(self, asked: int, answered: int) -> None:
        # Of an answer that broke off a provider may say nothing.
        self.tokens = asked + answered or self.tokens
        if self._is_compacted:
            self.floor, self._is_compacted = max(0, asked - self._whole), False


def _seen(wire: dict[str, Any], unsaid: int) -> int:
    """Up to where whoever wrote an event knew the log."""
    return unsaid if wire.get("seen") is None else int(wire["seen"])


def _said(data: dict[str, Any]) -> int:
    pictures = len(data.get("images") or [])
    return -(-len(data["text"]) // CHARACTERS_A_TOKEN) + pictures * _OF_PICTURE
