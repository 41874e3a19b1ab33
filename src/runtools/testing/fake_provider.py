"""A model provider over real HTTP that plays a script in the wire of each provider.

It thinks, calls side by side, breaks off in the middle, and refuses to serve. It has seen no real
provider: the wires are those that the providers' own clients read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from runtools.testing.scripted_model import Call, Think

Wire = Literal["anthropic", "openai", "chat", "google", "mistral"]
IN_TOKENS, OUT_TOKENS = 1000, 50


@dataclass(frozen=True)
class Refuse:
    """An answer with another status than 200."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: str = '{"error": {"type": "error", "message": "no"}}'


@dataclass(frozen=True)
class Break:
    """The connection ends here, in the middle of the answer."""


@dataclass(frozen=True)
class Filtered:
    """The provider's filter stops the answer here: its end says so. Mistral's wire has no word for it."""


@dataclass(frozen=True)
class Fade:
    """The answer ends here, well-formed, and nothing says that this is all (Chat Completions).

    Attributes:
        last_line: but for the last line of the protocol.
    """

    last_line: bool = False


@dataclass(frozen=True)
class Full:
    """The answer is as long as it may be: its end says so (Anthropic's wire and Chat Completions)."""


@dataclass(frozen=True)
class Flood:
    """An answer that does not end: bytes, in one line, for as long as somebody reads.

    Attributes:
        coding: what it says that they are packed with.
    """

    coding: str = "identity"


@dataclass(frozen=True)
class Pause:
    """Nothing comes for a moment."""

    seconds: float


@dataclass
class Asked:
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeProvider:
    """What it will answer, request after request (the last one for ever), and what it was asked."""

    wire: Wire
    answers: Sequence[Any]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    stamps: list[float] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self._one(reader, writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.asked.append(Asked(head[0].split(" ")[1], headers, json.loads(body or b"{}")))
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Refuse):
            lines = [f"HTTP/1.1 {answer.status} x", "Content-Type: application/json"]
            lines += [f"{name}: {value}" for name, value in answer.headers]
            lines += [f"Content-Length: {len(answer.body)}", "", answer.body]
            writer.write("\r\n".join(lines).encode())
            await writer.drain()
            return
        if isinstance(answer, Flood):
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Content-Encoding: %s\r\n\r\ndata: " % answer.coding.encode()
            )
            while not writer.is_closing():
                writer.write(b"x" * 65_536)
                await writer.drain()
            raise ConnectionError
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for piece in _WIRES[self.wire](answer):
            if isinstance(piece, Break):
                await writer.drain()
                writer.transport.abort()
                raise ConnectionError
            if isinstance(piece, Pause):
                await asyncio.sleep(piece.seconds)
                continue
            data = piece.encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.stamps.append(asyncio.get_running_loop().time())
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def provider(wire: Wire, *answers: Any) -> AsyncIterator[FakeProvider]:
    """One on the loopback, until the block ends."""
    fake = FakeProvider(wire, answers)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    base = {"anthropic": "", "google": ""}.get(wire, "/v1")
    fake.url = f"http://127.0.0.1:{port}{'' if wire == 'mistral' else base}"
    try:
        yield fake
    finally:
        server.close()


def _data(value: Any, name: str | None = None) -> str:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {value if isinstance(value, str) else json.dumps(value)}\n\n"


def _is_filtered(answer: Sequence[Any]) -> bool:
    return Filtered() in answer


def _arguments(call: Call) -> str:
    return json.dumps(call.given) if call.raw is None else call.raw


def _has_calls(answer: Sequence[Any]) -> bool:
    return any(isinstance(item, Call) for item in answer)


def _anthropic(answer: Sequence[Any]) -> Iterator[Any]:
    def event(kind: str, **more: Any) -> str:
        return _data({"type": kind, **more}, kind)

    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": IN_TOKENS, "output_tokens": 1},
    }
    yield event("message_start", message=message)
    for index, item in enumerate(answer):
        if isinstance(item, (Break, Pause)):
            yield item
            continue
        if isinstance(item, (Filtered, Full)):
            break
        block: dict[str, Any]
        deltas: list[dict[str, Any]]
        match item:
            case Think():
                block = {"type": "thinking", "thinking": "", "signature": ""}
                deltas = [
                    {"type": "thinking_delta", "thinking": item.text},
                    {"type": "signature_delta", "signature": "c2lnbmVk"},
                ]
            case Call():
                block = {"type": "tool_use", "id": f"toolu_{index}", "name": item.name, "input": {}}
                deltas = [{"type": "input_json_delta", "partial_json": _arguments(item)}]
            case text:
                block, deltas = {"type": "text", "text": ""}, [{"type": "text_delta", "text": text}]
        yield event("content_block_start", index=index, content_block=block)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    reason = "tool_use" if _has_calls(answer) else "end_turn"
    reason = "refusal" if _is_filtered(answer) else reason
    reason = "max_tokens" if Full() in answer else reason
    usage = {"output_tokens": OUT_TOKENS}
    yield event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage)
    yield event("message_stop")


def _chat(answer: Sequence[Any]) -> Iterator[Any]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data({**_CHAT, "choices": [choice]})

    calls = 0
    for item in answer:
        match item:
            case Break() | Pause():
                yield item
            case Filtered() | Full():
                break
            case Fade():
                yield from [_data("[DONE]")] * item.last_line
                return
            case Think():
                yield chunk({"role": "assistant", "reasoning_content": item.text})
            case Call():
                function = {"name": item.name, "arguments": _arguments(item)}
                call = {
                    "index": calls,
                    "id": f"call_{calls}",
                    "type": "function",
                    "function": function,
                }
                yield chunk({"role": "assistant", "tool_calls": [call]})
                calls += 1
            case text:
                yield chunk({"role": "assistant", "content": text})
    reason = "tool_calls" if calls else "stop"
    reason = "length" if Full() in answer else reason
    yield chunk({}, "content_filter" if _is_filtered(answer) else reason)
    yield _data({**_CHAT, "choices": [], "usage": _USAGE})
    yield _data("[DONE]")


_CHAT = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_USAGE = {
    "prompt_tokens": IN_TOKENS,
    "completion_tokens": OUT_TOKENS,
    "total_tokens": IN_TOKENS + OUT_TOKENS,
}


def _mistral(answer: Sequence[Any]) -> Iterator[Any]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        more = {"usage": _USAGE} if finish else {}
        return _data({**_CHAT, "choices": [choice], **more})

    calls = 0
    for item in answer:
        match item:
            case Break() | Pause():
                yield item
            case Think():
                thought = [{"type": "text", "text": item.text}]
                yield chunk(
                    {"role": "assistant", "content": [{"type": "thinking", "thinking": thought}]}
                )
            case Call():
                function = {"name": item.name, "arguments": json.dumps(item.given)}
                call = {
                    "index": calls,
                    "id": f"call{calls:05}",
                    "type": "function",
                    "function": function,
                }
                yield chunk({"role": "assistant", "content": "", "tool_calls": [call]})
                calls += 1
            case text:
                yield chunk({"role": "assistant", "content": text})
    yield chunk({"content": ""}, "tool_calls" if calls else "stop")
    yield _data("[DONE]")


def _google(answer: Sequence[Any]) -> Iterator[Any]:
    def chunk(parts: list[Any], finish: str | None = None) -> str:
        candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
        if finish:
            candidate["finishReason"] = finish
        usage = {
            "promptTokenCount": IN_TOKENS,
            "candidatesTokenCount": OUT_TOKENS,
            "totalTokenCount": IN_TOKENS + OUT_TOKENS,
        }
        body = {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "gemini",
            "responseId": "r1",
        }
        return _data(body)

    for item in answer:
        match item:
            case Break() | Pause():
                yield item
            case Filtered():
                break
            case Think():
                yield chunk([{"text": item.text, "thought": True}])
            case Call():
                call = {"name": item.name, "args": item.given}
                yield chunk([{"functionCall": call, "thoughtSignature": "c2lnbmVk"}])
            case text:
                yield chunk([{"text": text}])
    yield chunk([{"text": ""}], "SAFETY" if _is_filtered(answer) else "STOP")


def _openai(answer: Sequence[Any]) -> Iterator[Any]:
    numbers = iter(range(10_000))

    def event(kind: str, **more: Any) -> str:
        return _data({"type": kind, "sequence_number": next(numbers), **more}, kind)

    whole: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt",
        "output": [],
        "status": "in_progress",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
    }
    yield event("response.created", response=whole)
    for index, item in enumerate(answer):
        match item:
            case Break() | Pause():
                yield item
            case Filtered():
                break
            case Think():
                yield from _reasoning(event, index, item.text)
            case Call():
                yield from _function(event, index, item)
            case text:
                yield from _message(event, index, text)
    usage = {
        "input_tokens": IN_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": OUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 7},
        "total_tokens": IN_TOKENS + OUT_TOKENS,
    }
    if _is_filtered(answer):
        end = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
        yield event("response.incomplete", response={**whole, **end, "usage": usage})
        return
    yield event("response.completed", response={**whole, "status": "completed", "usage": usage})


def _reasoning(event: Callable[..., str], index: int, text: str) -> Iterator[str]:
    item: dict[str, Any] = {
        "id": f"rs_{index}",
        "type": "reasoning",
        "summary": [],
        "encrypted_content": "c2lnbmVk",
    }
    at = {"item_id": item["id"], "output_index": index, "summary_index": 0}
    yield event("response.output_item.added", output_index=index, item=item)
    part = {"type": "summary_text", "text": ""}
    yield event("response.reasoning_summary_part.added", **at, part=part)
    yield event("response.reasoning_summary_text.delta", **at, delta=text)
    yield event("response.reasoning_summary_text.done", **at, text=text)
    part = {"type": "summary_text", "text": text}
    yield event("response.reasoning_summary_part.done", **at, part=part)
    yield event("response.output_item.done", output_index=index, item={**item, "summary": [part]})


def _function(event: Callable[..., str], index: int, call: Call) -> Iterator[str]:
    arguments = json.dumps(call.given)
    item = {
        "id": f"fc_{index}",
        "type": "function_call",
        "call_id": f"call_{index}",
        "name": call.name,
        "arguments": "",
        "status": "in_progress",
    }
    at = {"item_id": item["id"], "output_index": index}
    yield event("response.output_item.added", output_index=index, item=item)
    yield event("response.function_call_arguments.delta", **at, delta=arguments)
    yield event("response.function_call_arguments.done", **at, arguments=arguments, name=call.name)
    done = {**item, "arguments": arguments, "status": "completed"}
    yield event("response.output_item.done", output_index=index, item=done)


def _message(event: Callable[..., str], index: int, text: str) -> Iterator[str]:
    item: dict[str, Any] = {
        "id": f"msg_{index}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "status": "in_progress",
    }
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    yield event("response.output_item.added", output_index=index, item=item)
    yield event("response.content_part.added", **at, part=part)
    yield event("response.output_text.delta", **at, delta=text, logprobs=[])
    yield event("response.output_text.done", **at, text=text, logprobs=[])
    part = {**part, "text": text}
    yield event("response.content_part.done", **at, part=part)
    done = {**item, "content": [part], "status": "completed"}
    yield event("response.output_item.done", output_index=index, item=done)


_WIRES: dict[Wire, Callable[[Sequence[Any]], Iterator[Any]]] = {
    "anthropic": _anthropic,
    "openai": _openai,
    "chat": _chat,
    "google": _google,
    "mistral": _mistral,
}
