"""What is wrong with a project, in words that name file, line and field."""

from __future__ import annotations

import ast
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runtools.project import misfits
from runtools.project.define import Call

# How Python says that a call does not fit; the name it quotes is the field.
_MISFIT = re.compile(r"^(define_\w+\(\)) .*argument[s]?:? '(\w+)'")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where; the file is relative to the project's root."""

    file: str
    line: int | None
    field: str | None
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return (
            f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"
        )

    def to_wire(self) -> dict[str, Any]:
        """As it stands in the details of an error."""
        return asdict(self)


def of_call(
    root: Path, call: Call, error: Exception, within: tuple[str, ...] = ()
) -> Iterator[Problem]:
    """What a definition was refused for, one problem a field.

    Args:
        root: the project's.
        call: the one that defines it.
        error: what was raised.
        within: the field that was looked at, where it was not all of it.
    """
    file = relative(root, call.file)
    lines = lines_of_fields(Path(call.file), call.line)
    if not isinstance(error, ValidationError):
        line = lines.get(within[0], call.line) if within else call.line
        yield Problem(file, line, ".".join(within) or None, str(error))
        return
    for one in error.errors(include_url=False):
        words = [*within, *map(str, one["loc"])]
        line = lines.get(words[0] if words else "", call.line)
        message = misfits.words(one)
        if one["type"] != "missing" and isinstance(one["input"], str | int | float):
            message += f" (it is {_short(one['input'])})"
        yield Problem(file, line, ".".join(words) or None, message)


def of_failure(root: Path, file: Path, error: BaseException) -> Problem:
    """What kept a file from being loaded."""
    place = relative(root, str(file))
    if isinstance(error, SyntaxError) and error.filename:
        return Problem(relative(root, error.filename), error.lineno, None, f"{error.msg}")
    near = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(root)
    ]
    line = near[-1].lineno if near else None
    where = relative(root, near[-1].filename) if near else place
    if isinstance(error, SystemExit):
        return Problem(where, line, None, "it calls exit; a definition only defines")
    misfit = _MISFIT.match(str(error)) if isinstance(error, TypeError) else None
    text = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, ModuleNotFoundError) and not _is_ours(root, error.name or ""):
        text += (
            f"; {sys.executable} runs the files and lacks it (a tool's action may import it itself)"
        )
    if misfit is None:
        return Problem(where, line, None, text)
    fields = lines_of_fields(root / where, line or 0)
    return Problem(where, fields.get(misfit[2], line), misfit[2], str(error))


def _is_ours(root: Path, module: str) -> bool:
    first = root / module.partition(".")[0]
    return first.exists() or first.with_suffix(".py").exists()


def relative(root: Path, file: str) -> str:
    """A file as the project's owner knows it."""
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file


def lines_of_fields(file: Path, line: int) -> dict[str, int]:
    """The line of each argument of the call that begins on a line."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError):
        return {}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.lineno == line]
    return {
        keyword.arg: keyword.value.lineno
        for call in calls
        for keyword in call.keywords
        if keyword.arg
    }


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
