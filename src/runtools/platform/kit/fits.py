"""A program: whether a value fits a JSON Schema. It is started for one question, and may be killed over it.

    {"schema": …, "given": …, "seconds": 5}   on stdin; what is wrong, in words for the model, on stdout

Exits with 2 where the schema itself is wrong. Patterns that go back without end, and schemas that refer to
themselves so that nobody could look at all of it, cost this process its time and nobody else's.
"""

from __future__ import annotations

import json
import resource
import sys
from itertools import islice
from typing import Any

import jsonschema
from referencing import Registry

WRONG_SCHEMA = 2
_MOST_FAULTS = 5
_MOST_MEMORY = 2 * 1024 * 1024 * 1024


def main() -> int:
    """Answer the question."""
    try:
        asked: dict[str, Any] = json.load(sys.stdin)
    except RecursionError:
        sys.stdout.write("it is nested too deeply")
        return 0
    seconds = int(asked["seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sys.stdout.write(_faults(asked["schema"], asked["given"]))
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with a schema that somebody sent
        sys.stdout.write(str(exc)[:500])
        return WRONG_SCHEMA
    return 0


def _faults(schema: Any, given: Any) -> str:
    jsonschema.Draft202012Validator.check_schema(schema)
    # With a registry of its own it fetches nothing, from wherever a reference leads to.
    validator = jsonschema.Draft202012Validator(schema, registry=Registry())
    found = islice(validator.iter_errors(given), _MOST_FAULTS)
    return "; ".join(f"{one.json_path}: {one.message[:300]}" for one in found)


if __name__ == "__main__":
    sys.exit(main())
