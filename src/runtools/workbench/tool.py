"""What a tool is: a name, words for the model, the shape of its parameters, and what it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from runtools.errors import RunToolsError


class Parameters(BaseModel):
    """The parameters of a tool. What it does not know is refused, so that the model can put it right."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Correctable(Exception):
    """The call cannot be done as it was made; the message tells the model what to do instead."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture for a model that can see."""

    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool gives back to the model."""

    text: str
    failed: bool = False
    images: tuple[Image, ...] = ()


C = TypeVar("C")
P = TypeVar("P", bound=Parameters)


@cache
def _schema(parameters: type[Parameters]) -> dict[str, Any]:
    schema = parameters.model_json_schema()  # two milliseconds, and a run asks for ten
    schema.pop("title", None)
    schema.pop("description", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
    return schema


@dataclass(frozen=True, slots=True)
class Tool(Generic[C, P]):
    """One tool. ``C`` is what it works on: a `Bench`, or a whole platform.

    Attributes:
        name: what the model calls it.
        description: what it is for, when it fails, and how its result looks; short and exact.
        parameters: their shape.
        act: does it, and says what came of it; raises `Correctable` or a `RunToolsError` where it cannot.
        changes: whether it can change anything.
        loses: whether what it changes can be gone for good.
    """

    name: str
    description: str
    parameters: type[P]
    act: Callable[[C, P], Awaitable[str | Result]]
    changes: bool = True
    loses: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """Its parameters as JSON Schema."""
        return deepcopy(_schema(self.parameters))

    async def call(self, place: C, given: dict[str, Any]) -> Result:
        """Do it with what the model has given. What the model can put right is a failed result.

        Raises:
            Unauthenticated, Forbidden, Unavailable …: what no other call of the model would mend.
        """
        try:
            parameters = self.parameters.model_validate(given)
        except ValidationError as exc:
            return Result(_told(exc), failed=True)
        try:
            said = await self.act(place, parameters)
        except Correctable as exc:
            return Result(str(exc), failed=True)
        except RunToolsError as exc:
            if exc.status in _BEYOND:
                raise
            return Result(f"{exc.code}: {exc}", failed=True)
        return said if isinstance(said, Result) else Result(said)


# The key, its rights, the rate, and what is down: nothing that a model could mend by another call.
_BEYOND = frozenset({401, 403, 429, 500, 503})


def _told(error: ValidationError) -> str:
    lines = [
        f"{'.'.join(map(str, one['loc'])) or 'parameters'}: {one['msg']}" for one in error.errors()
    ]
    return "invalid parameters: " + "; ".join(lines)
