"""What OpenAI's client, and the layer over it, would do anew for each piece and message: once, or quicker.

A run asks about the same conversation again and again, a turn longer each time. All of this changes how
long that takes, and nothing of what is sent or heard.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from runtools.platform.agents.models.whole import whole_stream

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse
    from pydantic_ai.models.openai import OpenAIChatModel


def check_pieces(api: Any) -> None:
    """Have each piece of a stream checked at once, not built field by field: 4 microseconds and not 80.

    What is not as it should be is built as before: many servers speak this protocol after a fashion.
    """
    build = api._process_response_data  # noqa: SLF001 - there is no other place

    def checked(*, data: object, cast_to: Any, response: Any) -> Any:
        if isinstance(data, dict) and isinstance(cast_to, type) and issubclass(cast_to, BaseModel):
            try:
                return cast_to.model_validate(data)
            except ValidationError:
                pass
        return build(data=data, cast_to=cast_to, response=response)

    api._process_response_data = checked  # noqa: SLF001


def write_at_once(api: Any) -> None:
    """Have a question to a chat written as the same JSON: 50 microseconds for thirty answers and not 260.

    OpenAI's client would walk through every field of it to see whether one has another name on the wire,
    which none has, put its address together anew, and write it with Python's own JSON. Numbers that JSON
    has not (`ValueError`) are refused as it refuses them.
    """
    from openai._base_client import make_request_options  # noqa: PLC0415
    from openai._utils import is_given  # noqa: PLC0415
    from openai.types.chat import ChatCompletion  # noqa: PLC0415

    async def create(
        *,
        stream: bool,
        extra_headers: Mapping[str, str],
        timeout: Any,
        extra_body: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> Any:
        said = {**given, "stream": stream, **(extra_body or {})}
        return await api.post(
            "/chat/completions",
            content=_written({name: one for name, one in said.items() if is_given(one)}),
            options=make_request_options(
                extra_headers=extra_headers, timeout=timeout, security={"bearer_auth": True}
            ),
            cast_to=ChatCompletion,
            stream=stream,
            stream_cls=whole_stream(),
        )

    api.chat.completions.create = create
    api._prepare_url = cache(api._prepare_url)  # noqa: SLF001 - there is no other place


def _written(said: dict[str, Any]) -> bytes:
    """As JSON.

    Raises:
        ValueError: a number in it is none that JSON has.
    """
    written = to_json(said, inf_nan_mode="constants")
    if b"NaN" in written or b"Infinity" in written:  # in a text, or as a number
        json.loads(written, parse_constant=_refused)
    return written


def _refused(constant: str) -> None:
    raise ValueError(f"Out of range float values are not JSON compliant: {constant}")


def remembering(model: OpenAIChatModel) -> OpenAIChatModel:
    """The model, which brings a message into the protocol's form once, for as long as it is asked about."""
    of_user, of_model, of_all = (
        model._map_user_message,  # noqa: SLF001
        model._map_model_response,  # noqa: SLF001
        model._map_messages,  # noqa: SLF001
    )
    kept: dict[int, tuple[ModelMessage, list[Any]]] = {}

    async def map_user(message: ModelRequest) -> AsyncIterator[Any]:
        if id(message) not in kept:
            kept[id(message)] = message, [one async for one in of_user(message)]
        for one in kept[id(message)][1]:
            yield dict(one)

    def map_answer(message: ModelResponse) -> Any:
        if id(message) not in kept:
            kept[id(message)] = message, [of_model(message)]
        [one] = kept[id(message)][1]
        return None if one is None else dict(one)

    async def map_all(messages: Sequence[ModelMessage], *args: Any, **more: Any) -> Any:
        of_now = {id(message) for message in messages}
        for known in [one for one in kept if one not in of_now]:
            del kept[known]
        return await of_all(messages, *args, **more)

    changed: Any = model
    changed._map_user_message = map_user  # noqa: SLF001
    changed._map_model_response = map_answer  # noqa: SLF001
    changed._map_messages = map_all  # noqa: SLF001
    return model
