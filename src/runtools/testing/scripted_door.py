"""What stands before the routes of the scripted api: the key, failures on order, repeats, errors."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtools.errors import RunToolsError, Unauthenticated
from runtools.sdk import shapes

KEY = "rt_live_scripted"


@dataclass(frozen=True, slots=True)
class Failure:
    """What befalls one request.

    Attributes:
        status, body: answered instead of what the platform would; nothing is done.
        cut: what was asked is done, but the connection is cut before the answer is whole.
        path: only a request whose path ends so is meant.
    """

    status: int = 503
    body: bytes = b"busy"
    cut: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class Door:
    """Every request comes through here.

    Attributes:
        failures: what befalls the next requests, one each.
        seen: the requests that came.
        answers: by idempotency key: what a repeat gets.
    """

    failures: deque[Failure] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)

    def before(self, app: ASGIApp) -> ASGIApp:
        """The application behind the door."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                for message in await self._serve(app, scope, receive):
                    await send(message)

        return serve

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive) -> list[Message]:
        request = Request(scope, receive)
        body, path = await request.body(), request.url.path
        headers, query = dict(request.headers), request.query_params.multi_items()
        self.seen.append(Seen(request.method, path, query, headers, body))
        failure = self._next(path)
        if failure is not None and not failure.cut:
            return await _collect(Response(failure.body, failure.status), scope, body)
        if headers.get("authorization") != f"Bearer {KEY}":
            refusal = Unauthenticated("the key is unknown", hint="make another")
            return await _collect(_failed(refusal), scope, body)
        sent = await self._answer(app, scope, body, headers.get("idempotency-key"))
        return sent if failure is None else _cut(sent)

    def _next(self, path: str) -> Failure | None:
        meant = self.failures and path.endswith(self.failures[0].path)
        return self.failures.popleft() if meant else None

    async def _answer(
        self, app: ASGIApp, scope: Scope, body: bytes, key: str | None
    ) -> list[Message]:
        if key is not None and key in self.answers:
            return await _collect(Response(self.answers[key]), scope, body)
        try:
            sent = await _collect(app, scope, body)
        except RunToolsError as error:
            return await _collect(_failed(error), scope, body)
        if key is not None:
            self.answers[key] = sent[1]["body"]
        return sent


async def _collect(app: ASGIApp, scope: Scope, body: bytes) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def _cut(sent: list[Message]) -> list[Message]:
    others = [one for one in sent[0]["headers"] if one[0] != b"content-length"]
    start = {**sent[0], "headers": [*others, (b"content-length", b"1000000")]}
    return [start, {"type": "http.response.body", "body": b"{", "more_body": True}]


def reply(data: Any, status: int = 200, cursor: str | None = None) -> Response:
    """A successful response."""
    meta = {"requestId": "req_1", "hasMore": cursor is not None, "nextCursor": cursor}
    return Response(json.dumps({"data": _plain(data), "meta": meta}), status)


def _plain(data: Any) -> Any:
    if isinstance(data, list):
        return [_plain(item) for item in data]
    return data.model_dump(mode="json") if isinstance(data, shapes.Shape) else data


def _failed(error: RunToolsError) -> Response:
    return Response(json.dumps({"error": error.to_wire() | {"requestId": "req_1"}}), error.status)
