"""What every public shape has in common: camelCase on the wire, snake_case in Python."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Shape(BaseModel):
    """An immutable value that crosses a border. Readers ignore fields they do not know yet.

    Those with ``defer_build`` are built at their first use: a command needs a few, and to build them all
    takes longer than to ask.
    """

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        serialize_by_alias=True,
        extra="ignore",
    )


class Request(Shape):
    """A shape that a user sends: unknown fields are refused, so that a typo is not lost."""

    model_config = ConfigDict(extra="forbid")
