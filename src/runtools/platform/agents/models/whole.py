"""A stream in OpenAI's chat protocol, which says where it ends: by the word for why, or by its last line.

One that ends before either was cut off, however well it is formed: servers say the one or the other, and
OpenAI's client takes both for an end, and neither, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import cache
from typing import TYPE_CHECKING, Any

from runtools.platform.agents.answer import Cut

if TYPE_CHECKING:
    from openai import AsyncStream
    from openai.types.chat import ChatCompletionChunk

_LAST_LINE = "[DONE]"


@cache
def whole_stream() -> type[AsyncStream[ChatCompletionChunk]]:
    """Its class; reading on raises `Cut`. OpenAI's code is loaded when it is first used."""
    from openai import AsyncStream  # noqa: PLC0415
    from openai.types.chat import ChatCompletionChunk  # noqa: PLC0415

    class WholeStream(AsyncStream[ChatCompletionChunk]):
        _has_ended = False

        async def _iter_events(self) -> AsyncIterator[Any]:
            async for event in super()._iter_events():
                self._has_ended = self._has_ended or event.data.startswith(_LAST_LINE)
                yield event

        async def __stream__(self) -> AsyncIterator[ChatCompletionChunk]:
            some = False
            async with aclosing(super().__stream__()) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    some = True
                    self._has_ended = self._has_ended or _says_why(piece)
                    yield piece
            if some and not self._has_ended:
                raise Cut

    return WholeStream


def _says_why(piece: ChatCompletionChunk) -> bool:
    # Many servers speak this protocol after a fashion: what is no piece of it is handed on as it came.
    choices: Any = getattr(piece, "choices", None) or ()
    return any(getattr(one, "finish_reason", None) for one in choices)
