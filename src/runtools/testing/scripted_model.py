"""A model that plays a script: its answers in order, each as often as it is asked for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingPart,
    DeltaToolCall,
    FunctionModel,
)


@dataclass(frozen=True)
class Call:
    """A call of a tool; ``raw``: its arguments as the model wrote them."""

    name: str
    given: dict[str, Any] | None = None
    raw: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Think:
    """A thought."""

    text: str


@dataclass(frozen=True)
class Do:
    """Something that happens while it answers."""

    act: Callable[[], Awaitable[Any]]


Item = str | Call | Think | Do | Exception
Answer = Sequence[Any]
"""Items in order, or several such answers: for the first time that it is asked for, the second …"""


class Script:
    """What it will say, and what it was asked.

    Args:
        answers: by how often it has answered before in what it is shown; the last one for ever.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = answers
        self.asked: list[list[ModelMessage]] = []
        self.infos: list[AgentInfo] = []
        self._tries: dict[int, int] = {}

    def model(self) -> FunctionModel:
        """It as a model."""
        return FunctionModel(stream_function=self._play, model_name="scripted")

    async def _play(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        self.asked.append(list(messages))
        self.infos.append(info)
        place = sum(isinstance(message, ModelResponse) for message in messages)
        answer = self.answers[min(place, len(self.answers) - 1)]
        if answer and isinstance(answer[0], (list, tuple)):
            tried = self._tries[place] = self._tries.get(place, -1) + 1
            answer = answer[min(tried, len(answer) - 1)]
        for index, item in enumerate(answer):
            match item:
                case str():
                    yield item
                case Think():
                    yield {index: DeltaThinkingPart(content=item.text)}
                case Call():
                    given = item.raw if item.raw is not None else json.dumps(item.given or {})
                    call_id = item.id or f"call-{place}-{index}"
                    yield {index: DeltaToolCall(item.name, given, tool_call_id=call_id)}
                case Exception():
                    raise item
                case Do():
                    await item.act()
