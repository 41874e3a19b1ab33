"""How the host port travels over HTTP: one table, made from the port itself.

Server and client are both driven by `CALLS`, and `CALLS` is read off the `Host` protocol: a method or
parameter that is added there is on the wire, and nothing else is. Every call is

    POST /1/<method>        a line of JSON (the arguments by name), then raw bytes if it sends a body

and is answered, by what the method gives, with

    VALUE            200, the result as JSON
    ITEMS            200, lines of JSON: {"item": …} for each, at most one {"error": …} as the last
    BYTES            200, raw bytes
    VALUE_AND_BYTES  200, a line of JSON, then raw bytes
    an error         its status, what `RunToolsError.to_wire` makes

A stream that is cut off without its last HTTP chunk did not end: the reader must raise.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

from runtools.errors import RunToolsError
from runtools.platform.core.ports.host import Host
from runtools.sdk.shapes.events import ErrorBody

PREFIX = "/1/"
T = TypeVar("T")


class Line(BaseModel, Generic[T]):
    """One line of a stream of items: an item, or the error that ended it."""

    item: T | None = None
    error: ErrorBody | None = None


class Gives(Enum):
    """The form of an answer."""

    VALUE = auto()
    ITEMS = auto()
    BYTES = auto()
    VALUE_AND_BYTES = auto()


@dataclass(frozen=True, slots=True)
class Call:
    """One method of the port, as both sides of the wire need it.

    Attributes:
        name: the method's name.
        arguments: a model whose fields are the parameters, but for the one that is bytes.
        body: the name of the parameter that is a stream of bytes, if there is one.
        gives: the form of the answer.
        result: the value of the answer.
        line: a line of its items.
    """

    name: str
    arguments: type[BaseModel]
    body: str | None
    gives: Gives
    result: TypeAdapter[Any]
    line: type[Line[Any]]

    @property
    def path(self) -> str:
        """Where it is called."""
        return PREFIX + self.name

    def pack(self, *values: Any) -> bytes:
        """The line that carries the arguments, given in the order of the parameters."""
        named = zip(self.arguments.model_fields, values, strict=True)
        packed = self.arguments.model_construct(**dict(named))
        return packed.__pydantic_serializer__.to_json(packed) + b"\n"

    def pack_item(self, item: Any) -> bytes:
        """The line that carries an item."""
        return self.line.model_construct(item=item).model_dump_json().encode() + b"\n"

    def pack_error(self, error: RunToolsError) -> bytes:
        """The line that says what ended the items."""
        body = ErrorBody.model_validate(error.to_wire())
        return self.line.model_construct(error=body).model_dump_json().encode() + b"\n"

    def unpack(self, line: bytes) -> dict[str, Any]:
        """The arguments that a line carries.

        Raises:
            pydantic.ValidationError: it is not what the method takes.
        """
        model = self.arguments.model_validate_json(line)
        return {name: getattr(model, name) for name in self.arguments.model_fields}


def _is_stream(hint: Any) -> bool:
    return get_origin(hint) is AsyncIterator


def _answer(hint: Any) -> tuple[Gives, Any]:
    """The form of an answer, and the type of what in it is JSON."""
    if get_origin(hint) is tuple and _is_stream(get_args(hint)[1]):
        return Gives.VALUE_AND_BYTES, get_args(hint)[0]
    if not _is_stream(hint):
        return Gives.VALUE, hint
    (item,) = get_args(hint)
    return (Gives.BYTES, None) if item is bytes else (Gives.ITEMS, item)


def _call(name: str, method: Any) -> Call:
    hints = get_type_hints(method, include_extras=True)
    gives, result = _answer(hints.pop("return"))
    body = next((param for param, hint in hints.items() if _is_stream(hint)), None)
    fields: dict[str, Any] = {param: (hint, ...) for param, hint in hints.items() if param != body}
    arguments = create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)
    line: type[Line[Any]] = Line.__class_getitem__(result)  # type: ignore[assignment]
    return Call(name, arguments, body, gives, TypeAdapter(result), line)


CALLS: Mapping[str, Call] = {
    name: _call(name, method)
    for name, method in inspect.getmembers(Host, inspect.isfunction)
    if not name.startswith("_")
}
