"""What does not fit in a definition: found as a whole, and put in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from runtools.sdk.shapes.definitions import ActionName, TemplateName, ToolName
from runtools.sdk.shapes.sandboxes import EnvName, Name

Misfit = tuple[tuple[int | str, ...], str]
"""Where, and what is wrong there."""


def check(title: str, found: Iterable[Misfit]) -> None:
    """Nothing was found.

    Raises:
        ValidationError: something was; `title` says in what.
    """
    told = [
        InitErrorDetails(
            type=PydanticCustomError("misfit", "{said}", {"said": said}), loc=where, input=None
        )
        for where, said in found
    ]
    if told:
        raise ValidationError.from_exception_data(title, told)


def words(one: ErrorDetails) -> str:
    """What is wrong, as one says it to who wrote the file."""
    if one["type"] == "extra_forbidden":
        return "there is no such field"
    if one["type"] == "string_pattern_mismatch":
        pattern = one["ctx"]["pattern"]
        return _PATTERNS.get(pattern, f"it does not match {pattern}")
    return one["msg"].removeprefix("Value error, ")


def _pattern(kind: Any) -> str:
    return str(kind.__metadata__[0].pattern)


_PATTERNS = {
    _pattern(Name): "lower-case letters, digits and hyphens within, at most 63",
    _pattern(
        ToolName
    ): "lower-case letters, digits, and hyphens and underscores within, at most 63",
    _pattern(TemplateName): "a template's slug, or slug@version",
    _pattern(EnvName): "letters, digits and underscores, no digit first",
    _pattern(ActionName): "letters, digits and underscores, no digit first, at most 64",
}
