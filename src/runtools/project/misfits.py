"""What does not fit in a definition as a whole, told as pydantic tells what does not fit in a field."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

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
