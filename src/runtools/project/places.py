"""Where in a project's files that stands which the platform refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtools.errors import RunToolsError
from runtools.project.folder import PLURALS
from runtools.project.loading import Defined
from runtools.project.problems import Problem, lines_of_fields


def place(error: RunToolsError, root: Path, defined: Sequence[Defined]) -> None:
    """Have an error that is about a definition begin with its file, line and field.

    The platform knows definitions by their place in a request or by slug: ``agents.0.name``,
    ``agents.hello.model``; or it says the definition, and a field of it by itself.
    """
    said = error.details
    words = (said.get("definition"), _field(said))
    path = ".".join(word for word in words if word)
    plural, _, rest = path.partition(".")
    which, _, field = rest.partition(".")
    one = _which(which, [one for one in defined if PLURALS[one.kind] == plural])
    if one is None:
        return
    field = re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", field)
    lines = lines_of_fields(root / one.file, one.line)
    message = error.message.removeprefix(f"{path}: ")
    line = lines.get(field.partition(".")[0], one.line)
    problem = Problem(one.file, line, field or None, message)
    error.message = str(problem)
    error.details["problems"] = [problem.to_wire()]


def _field(details: dict[str, Any]) -> str | None:
    fields = details.get("fields")
    found = fields[0]["field"] if fields else details.get("field")
    return None if found is None else str(found)


def _which(said: str, defined: Sequence[Defined]) -> Defined | None:
    for at, one in enumerate(defined):
        if said in (one.slug, str(at)):
            return one
    return None
