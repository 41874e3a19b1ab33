"""How large a conversation is, from answer to answer, over all runs of its thread. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from runtools.platform.core.ports.worker import Logged


@dataclass(slots=True)
class Extent:
    """What the logs of a thread say of it, learned in order.

    Attributes:
        tokens: as the last answer counted them; 0: none has since the last compaction.
        floor: those that the first question after that took; 0: nobody counted them, or there was none.
        results: characters that calls have given back since the last answer.
    """

    tokens: int = 0
    floor: int = 0
    results: int = 0
    _run_id: str = ""
    _turn: int = 0
    _is_compacted: bool = False  # and nothing was counted since

    def learn(self, event: Logged) -> None:
        """Take in the next event."""
        if event.run_id != self._run_id:
            self._run_id, self._turn = event.run_id, 0  # each run counts its turns anew
        data = event.data
        match event.type:
            case "message" if data["role"] == "assistant" and data["turn"] > 0:
                self._turn, self.results = data["turn"], 0
            case "tool-result":
                self.results += len(data["output"])
            case "usage" if data["turn"] == self._turn:
                self._count(data["inputTokens"], data["outputTokens"])
            case "compaction":
                self.tokens = self.floor = self.results = 0
                self._is_compacted = True
            case _:
                pass

    def _count(self, asked: int, answered: int) -> None:
        # Of an answer that broke off a provider may say nothing.
        self.tokens = asked + answered or self.tokens
        if self._is_compacted:
            self.floor, self._is_compacted = asked, False
