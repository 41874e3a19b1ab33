"""A program: which schemas are JSON Schemas, and whether a value fits one. It may be killed over that.

    {"schemas": [{…}, …], "seconds": 5}           a line for each: null, or [[where, …], what is wrong]
    {"schemas": [{…}], "given": …, "seconds": 5}  what is wrong with the value, in words for the model

A schema is of the draft that it names, or of the latest. With a value it exits with 2 where the schema is
none; with 3 where all of that is nested too deeply. Patterns that go back without end, and schemas that
refer to themselves so that nobody could look at all of it, cost this process its time (so many seconds for
each) and nobody else's.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from itertools import islice
from typing import Any

import jsonschema
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

WRONG_SCHEMA, TOO_DEEP = 2, 3
_MOST_FAULTS = 5
_DATA = frozenset({"const", "enum", "default", "examples"})
"""What is under these is no schema."""
_NAMED = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
"""Under these stand schemas by names of their author's."""
_MOST_WORDS = 300
_MOST_MEMORY = 2 * 1024 * 1024 * 1024


def main() -> int:
    """Answer the question."""
    try:
        asked: dict[str, Any] = json.load(sys.stdin)
    except RecursionError:
        return TOO_DEEP
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for schema in asked["schemas"]:
        most = int(time.process_time() + asked["seconds"])
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
        if "given" not in asked:
            sys.stdout.write(json.dumps(_wrong(schema)) + "\n")
            sys.stdout.flush()
            continue
        try:
            sys.stdout.write(_faults(schema, asked["given"]))
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a schema that somebody sent
            sys.stdout.write(str(exc)[:500])
            return WRONG_SCHEMA
    return 0


def _wrong(schema: Any) -> tuple[list[str], str] | None:
    """Where in what should be a schema something is wrong, and what."""
    try:
        _kind(schema).check_schema(schema)
        _resolve(schema)
    except jsonschema.SchemaError as exc:
        return [str(word) for word in exc.absolute_path], exc.message[:_MOST_WORDS]
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with a schema that somebody sent
        return [], str(exc)[:_MOST_WORDS]
    return None


def _resolve(schema: Any) -> None:
    """Look up what it refers to in itself, where all of it has one name."""
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = Registry().with_resource("", resource).resolver()
    references: list[Any] = []
    waiting = [
        (schema, False)
    ]  # each with whether its names are an author's, and not the schema's own
    while waiting:
        value, is_named = waiting.pop()
        if isinstance(value, list):
            waiting += [(one, False) for one in value]
        elif isinstance(value, dict) and is_named:
            waiting += [(one, False) for one in value.values()]
        elif isinstance(value, dict):
            if isinstance(value.get("$id"), str):
                return
            references.append(value.get("$ref"))
            waiting += [(one, name in _NAMED) for name, one in value.items() if name not in _DATA]
    for reference in references:
        if not isinstance(reference, str):
            continue
        if reference and not reference.startswith("#"):
            raise LookupError(
                f"{reference!r} leads elsewhere, and only a reference within is followed"
            )
        resolver.lookup(reference)


def _faults(schema: Any, given: Any) -> str:
    kind = _kind(schema)
    kind.check_schema(schema)
    # With a registry of its own it fetches nothing, from wherever a reference leads to.
    found = islice(kind(schema, registry=Registry()).iter_errors(given), _MOST_FAULTS)
    return "; ".join(f"{one.json_path}: {one.message[:_MOST_WORDS]}" for one in found)


def _kind(schema: Any) -> Any:
    return validator_for(schema, default=jsonschema.Draft202012Validator)


if __name__ == "__main__":
    sys.exit(main())
