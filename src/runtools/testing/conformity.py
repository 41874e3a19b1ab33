"""Holds every answer of an api under test against the OpenAPI document: status, headers, type and body.

Strict: a status, a header of ours or a field of which the document says nothing is a fault, too.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JSON = "application/json"
# What servers and HTTP itself add to answers.
_USUAL = frozenset(
    {
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "transfer-encoding",
        "x-accel-buffering",
        "x-content-type-options",
    }
)


@dataclass(frozen=True, slots=True)
class Route:
    """A path of the document, and what may be answered there by each method."""

    matches: re.Pattern[str]
    methods: Mapping[str, Mapping[str, Any]]


class Rules:
    """A document, as it is asked what may be answered: made once, for many apis."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._schemas = strict(document["components"]["schemas"])
        self._validators: dict[str, Any] = {}
        ordered = sorted(document["paths"].items(), key=lambda item: item[0].count("{"))
        self._routes = [Route(_pattern(path), methods) for path, methods in ordered]

    def said(self, method: str, path: str) -> Mapping[str, Any] | None:
        """What the document says of a route by a method."""
        for route in self._routes:
            if route.matches.fullmatch(path):
                return route.methods.get(method.lower())
        return None

    def wrong(self, schema: Mapping[str, Any], body: bytes) -> list[str]:
        """Where a body is not as a schema of the document has it."""
        kept = json.dumps(schema, sort_keys=True)
        if kept not in self._validators:
            whole = {**strict(schema), "components": {"schemas": self._schemas}}
            self._validators[kept] = jsonschema_rs.validator_for(whole)
        return [
            f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"
            for error in self._validators[kept].iter_errors(json.loads(body))
        ]


@dataclass
class Conformity:
    """What one api answered, and what of it the document does not allow."""

    rules: Rules
    faults: list[str] = field(default_factory=list)

    def check(
        self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        """Hold one answer against the document; no body: it is a stream, or broke off."""
        said = self.rules.said(method, path)
        if said is None:
            return
        where = f"{method} {path} {status}"
        answer = said["responses"].get(str(status))
        if answer is None:
            self.faults.append(f"{where}: no such status is documented; {(body or b'')[:200]!r}")
            return
        named = {name.lower() for name in answer.get("headers", {})}
        if strange := set(headers) - named - _USUAL:
            self.faults.append(f"{where}: headers nobody speaks of: {sorted(strange)}")
        content = answer.get("content", {})
        kind = headers.get("content-type", "").partition(";")[0]
        if content and kind not in content:
            self.faults.append(f"{where}: {kind!r} is none of {sorted(content)}")
        elif (
            kind == _JSON
            and body is not None
            and (wrong := self.rules.wrong(content[kind]["schema"], body))
        ):
            self.faults.append(f"{where}: {'; '.join(wrong[:5])}")


class Watched:
    """An ASGI application whose answers are all checked."""

    def __init__(self, app: ASGIApp, conformity: Conformity) -> None:
        self._app = app
        self._conformity = conformity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head: Message = {}
        pieces: list[bytes] = []

        async def watching(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = message
            elif message["type"] == "http.response.body":
                self._take(scope, head, pieces, message)
            await send(message)

        await self._app(scope, receive, watching)

    def _take(self, scope: Scope, head: Message, pieces: list[bytes], message: Message) -> None:
        headers = {
            name.decode().lower(): value.decode("latin-1") for name, value in head["headers"]
        }
        more, is_json = message.get("more_body", False), _JSON in headers.get("content-type", "")
        first = not pieces
        pieces.append(message.get("body", b"") if is_json else b"")
        if more if is_json else not first:
            return
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        body = b"".join(pieces) if is_json else None
        self._conformity.check(scope["method"], path, head["status"], headers, body)


def strict(schema: Any) -> Any:
    """The same schema, by which an object has no field of which it says nothing."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {name: strict(one) for name, one in copy.copy(schema).items()}
    if isinstance(made.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", path)
    return re.compile("".join("[^/]+" if one.startswith("{") else re.escape(one) for one in parts))
