"""What is done once, or quicker, is done as it was before."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

from runtools.platform.agents.models import quickened

PIECE: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}}],
}


def model() -> OpenAIChatModel:
    """One that asks nobody."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(500)))
    api = AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:1/v1", http_client=http)
    return OpenAIChatModel("m", provider=OpenAIProvider(openai_client=api))


def conversation() -> list[ModelMessage]:
    """Of every kind of part that goes to a model."""
    picture = BinaryContent(data=b"GIF89a", media_type="image/gif")
    said: list[ModelMessage] = [
        ModelRequest(parts=[SystemPromptPart("be kind"), UserPromptPart(["look", picture])]),
    ]
    for n in range(4):
        call = ToolCallPart("bash", {"n": n}, tool_call_id=f"c{n}")
        thought = ThinkingPart("hm", id="reasoning_content", provider_name="openai")
        said += [
            ModelResponse(parts=[thought, TextPart(f"step {n}"), call]),
            ModelRequest(
                parts=[
                    ToolReturnPart("bash", f"out {n}", tool_call_id=f"c{n}"),
                    UserPromptPart("and this"),
                ]
            ),
        ]
    return said


async def test_each_message_goes_out_as_it_did() -> None:
    plain, quick = model(), quickened.remembering(model())
    said, parameters = conversation(), ModelRequestParameters()
    for upto in (1, 3, 3, 5, 9, 2):
        expected = await plain._map_messages(said[:upto], parameters)
        found = await quick._map_messages(said[:upto], parameters)
        assert json.dumps(found) == json.dumps(expected)
        for one in found:  # whoever changes what he was given changes nothing of the next
            one.clear()


async def test_a_message_is_brought_into_form_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    bare = model()
    before = bare._map_model_response
    monkeypatch.setattr(
        bare, "_map_model_response", lambda one: (asked.append(one), before(one))[1]
    )
    quick = quickened.remembering(bare)
    said = conversation()
    for _ in range(3):
        await quick._map_messages(said, ModelRequestParameters())
    assert asked == said[1::2]
    await quick._map_messages(said[:1], ModelRequestParameters())  # the others are let go of
    await quick._map_messages(said, ModelRequestParameters())
    assert len(asked) == 8


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.1, "max_tokens": 5, "stop_sequences": ["."], "timeout": 3.0},
        {"extra_body": {"top_k": 3, "stream": True}, "extra_headers": {"X-Own": "a"}},
    ],
)
async def test_a_question_goes_out_as_it_did(settings: OpenAIChatModelSettings) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number", "maximum": 1.5}}}
    tools = [ToolDefinition(name="bash", description="für alle", parameters_json_schema=schema)]
    sent: list[tuple[httpx2.URL, dict[str, str], Any]] = []

    def heard(request: httpx2.Request) -> httpx2.Response:
        headers = {name: text for name, text in request.headers.items() if name != "content-length"}
        sent.append((request.url, headers, json.loads(request.content)))
        assert request.headers["content-length"] == str(len(request.content))
        return httpx2.Response(500)

    for quick in (False, True):
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(heard))
        url = "http://127.0.0.1:1/v1"
        api = AsyncOpenAI(api_key="none", base_url=url, http_client=http, max_retries=0)
        if quick:
            quickened.write_at_once(api)
        asked = OpenAIChatModel("m", provider=OpenAIProvider(openai_client=api))
        parameters = ModelRequestParameters(function_tools=tools)
        for _ in range(2):
            with pytest.raises(ModelHTTPError):
                async with asked.request_stream(conversation(), settings, parameters):
                    pass
    assert len(sent) == 4
    assert sent[0] == sent[1] == sent[2] == sent[3]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
async def test_a_number_that_json_has_not_is_refused_as_it_was(number: float) -> None:
    settings: OpenAIChatModelSettings = {"extra_body": {"deep": [{"a": number}]}}
    sent: list[bytes] = []

    def heard(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content)
        return httpx2.Response(500)

    for quick in (False, True):
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(heard))
        api = AsyncOpenAI(api_key="none", base_url="http://x/v1", http_client=http, max_retries=0)
        if quick:
            quickened.write_at_once(api)
        asked = OpenAIChatModel("m", provider=OpenAIProvider(openai_client=api))
        with pytest.raises(ValueError, match="Out of range float values"):
            async with asked.request_stream(conversation(), settings, ModelRequestParameters()):
                pass
        said: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart("NaN and Infinity")])]
        with pytest.raises(ModelHTTPError):
            async with asked.request_stream(said, {}, ModelRequestParameters()):
                pass
    assert json.loads(sent[0]) == json.loads(sent[1])


@pytest.mark.parametrize(
    "piece",
    [
        PIECE,
        {**PIECE, "more": {"of": "theirs"}},
        {**PIECE, "choices": [{"index": 0, "delta": {}, "finish_reason": "their_own"}]},
        {**PIECE, "choices": None},
        {"choices": [{"delta": {"content": "no index"}}]},
        {"error": {"message": "broken"}},
        {},
    ],
)
def test_a_piece_is_what_it_was(piece: dict[str, Any]) -> None:
    api = AsyncOpenAI(api_key="none", http_client=httpx2.AsyncClient())
    response: Any = None
    given = {"data": piece, "cast_to": ChatCompletionChunk, "response": response}
    expected = api._process_response_data(**given)
    quickened.check_pieces(api)
    found = api._process_response_data(**given)
    assert found == expected
    assert found.to_dict() == expected.to_dict()
