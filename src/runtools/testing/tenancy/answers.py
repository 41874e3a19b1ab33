"""Requests of the walk, and what a caller can tell one answer from another by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from runtools.testing.tenancy.operations import Operation, Params
from runtools.testing.tenancy.org import Org

_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
ID = re.compile(r"\b(?:sandbox-|[a-z]{3}_)[a-z0-9]{12,}\b")
# What time or the caller's own asking changes; a delivery that nobody takes is tried again.
_MOVES = re.compile(
    r'"(requestId|lastUsedAt|attempts|nextAttemptAt|error|waitsFor)":("(?:[^"\\]|\\.)*"|null|\d+)'
)
# Numbers of the caller's own, which go on from one request to the next.
_COUNTED = ("x-ratelimit-", "ratelimit")
_PER_ANSWER = frozenset({"date", "x-request-id"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller can tell one answer from another by."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    def without(self, words: Iterable[str]) -> Answer:
        """The same, with what the caller itself sent taken out."""
        body = self.body
        for word in sorted(words, key=len, reverse=True):
            body = body.replace(word, "…")
        return Answer(self.status, self.headers, body)

    @property
    def data(self) -> Any:
        """What the body says, without what names the request."""
        said = json.loads(self.body) if self.body else {}
        return said.get("data", said.get("error"))

    @property
    def outline(self) -> Any:
        """Which fields the body has; their values are of a record's own. A stream has none."""
        return _outline(json.loads(self.body)) if self.body else None

    def __str__(self) -> str:
        return f"{self.status} {self.body[:300]}"


async def ask(org: Org, operation: Operation, refs: Params, sent: Mapping[str, Any]) -> Answer:
    """One request; of what goes on for ever the head alone."""
    path = operation.path
    for name, ref in refs.items():
        path = path.replace(f"{{{name}}}", quote(ref, safe=""))
    socket = operation.method == "WEBSOCKET"
    headers = {**sent.get("headers", {}), **(_UPGRADE if socket else {})}
    given = {name: sent[name] for name in ("json", "content") if name in sent}
    url = f"{path}?{sent['query']}" if sent["query"] else path
    method = "GET" if socket else operation.method
    async with org.http.stream(method, url, headers=headers, **given) as response:
        endless = operation.streams and (response.is_success or response.status_code == 101)
        if response.headers.get("content-type", "").startswith("application/json"):
            endless = False
        body = "" if endless else (await response.aread()).decode("latin-1")
    return Answer(response.status_code, _told(response, body), _MOVES.sub(r'"\1":"…"', body))


def _told(response: httpx.Response, body: str) -> tuple[tuple[str, str], ...]:
    # A body that was read is compared itself: what moves in it has its share in the length, too.
    without = _PER_ANSWER | ({"content-length"} if body else set())
    return tuple(
        (name, "" if name.startswith(_COUNTED) else value)
        for name, value in sorted(response.headers.items())
        if name not in without
    )


def _outline(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _outline(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_outline(one) for one in value]
    return None
