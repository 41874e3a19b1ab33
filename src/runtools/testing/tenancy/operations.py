"""What the OpenAPI document says can be asked, and requests made from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIWebSocketRoute

from runtools.platform.api.guard import PARTS_PATH

_PARAM = re.compile(r"\{(\w+)\}")
_MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
Params = dict[str, str]


@dataclass(frozen=True, slots=True)
class Operation:
    """A route by one method.

    Attributes:
        fields: the names in its query and its JSON body that a caller may set.
        lists: those of them that are lists of texts.
        queries: those of them that are in the query.
        example: the least JSON body that its schema allows; None: it takes none.
        streams: whether a success goes on until the caller leaves.
        nested: fields of objects in its query and body, each with its way: ``sandboxes[].template``.
    """

    method: str
    path: str
    fields: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    queries: frozenset[str] = frozenset()
    example: Mapping[str, Any] | None = None
    streams: bool = False
    nested: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """How tables name it."""
        return f"{self.method} {self.path}"

    @property
    def params(self) -> list[str]:
        """The names in its path."""
        return _PARAM.findall(self.path)

    @property
    def mutates(self) -> bool:
        """Whether it changes something."""
        return self.method in _MUTATING

    def prefixes(self) -> dict[str, str]:
        """Each name in the path, with the path up to it: the place of what it names."""
        return {found[1]: self.path[: found.end()] for found in _PARAM.finditer(self.path)}


def operations(app: FastAPI) -> list[Operation]:
    """Everything that the document names, and the WebSockets, of which it cannot know.

    What lies below `/parts/` is for no org (`flow/api/test_parts` shows it).
    """
    document = app.openapi()
    found = [
        _operation(document, method, path, said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]
    sockets = [
        route
        for route in app.routes
        if isinstance(route, APIWebSocketRoute) and not route.path.startswith(PARTS_PATH)
    ]
    return found + [Operation("WEBSOCKET", route.path, streams=True) for route in sockets]


def _operation(document: dict[str, Any], method: str, path: str, said: dict[str, Any]) -> Operation:
    parameters = [one for one in said.get("parameters", []) if one["in"] == "query"]
    queries = {one["name"] for one in parameters}
    content = said.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    body = None if schema is None else resolve(document, schema)
    fields = {one["name"]: one["schema"] for one in parameters}
    fields |= (body or {}).get("properties", {})
    return Operation(
        method.upper(),
        path,
        frozenset(fields),
        frozenset(name for name, one in fields.items() if _is_list(document, one)),
        frozenset(queries),
        None if body is None else example(document, body),
        any("text/event-stream" in one.get("content", {}) for one in said["responses"].values()),
        nested(document, fields),
    )


def nested(document: Mapping[str, Any], fields: Mapping[str, Any]) -> frozenset[str]:
    """The fields of objects within those fields, each with its way: ``sandboxes[].template``."""
    found: set[str] = set()

    def look(way: str, schema: Mapping[str, Any], seen: tuple[str, ...]) -> None:
        name = schema.get("$ref", "")
        if name in seen:
            return
        schema, seen = resolve(document, schema), (*seen, *([name] if name else []))
        for one in schema.get("anyOf", schema.get("oneOf", schema.get("allOf", ()))):
            look(way, one, seen)
        if "items" in schema:
            look(f"{way}[]", schema["items"], seen)
        for inner, one in schema.get("properties", {}).items():
            found.add(f"{way}.{inner}")
            look(f"{way}.{inner}", one, seen)

    for name, schema in fields.items():
        look(name, schema, ())
    return frozenset(found)


def _is_list(document: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    schema = resolve(document, schema)
    return any(
        one.get("type") == "array" and resolve(document, one["items"]).get("type") == "string"
        for one in schema.get("anyOf", [schema])
    )


def resolve(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, where it is a reference."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def example(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """The least value that a schema allows; patterns are not looked at."""
    schema = resolve(document, schema)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return example(document, schema[several][0])
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "object":
            known = schema.get("properties", {})
            return {name: example(document, known[name]) for name in schema.get("required", ())}
        case "array":
            return [example(document, schema["items"])] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
    return "sample-" + "x" * max(0, schema.get("minLength", 0) - 7)
