"""A question to the model that is under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pydantic_ai.messages import ModelResponse

from runtools.platform.agents.answer import Stream
from runtools.platform.agents.trouble import Trouble


@dataclass(frozen=True, slots=True)
class Question:
    """One, from when it was asked.

    Attributes:
        upto: where the log ends that it is about.
        reminder: what the model was reminded of at its end.
        coming: brings the answer, or why there is none.
    """

    upto: int
    reminder: str | None
    stream: Stream
    coming: asyncio.Task[ModelResponse | Trouble]
