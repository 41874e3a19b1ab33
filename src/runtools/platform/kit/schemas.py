"""JSON Schemas that somebody sent: whether they are any, and whether a value fits one.

A process is asked that may be killed (`fits`, decision 0038): looking at one can take for ever, and who
asks has more to do.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from runtools.errors import InvalidRequest
from runtools.platform.kit import fits, process
from runtools.platform.kit.http import wrong_field

SECONDS = 5
"""Of processor time, for one schema."""
_WALL_SECONDS = 60.0
_MOST_KNOWN = 4096
Fault = tuple[list[str], str]
"""Where in a schema something is wrong, and what."""
_DEEP, _LONG = "it is nested too deeply", "it is no JSON Schema that could be looked at in time"


class Schemas:
    """Says which schemas are any. Those that were found to be are not asked about again."""

    def __init__(self) -> None:
        self._known: dict[bytes, None] = {}

    async def check(self, schemas: Mapping[str, Any]) -> None:
        """They are JSON Schemas.

        Args:
            schemas: by the field that they stand in.

        Raises:
            InvalidRequest: one is none; the field is where something is wrong in it.
        """
        faults = await self.faulty(schemas)
        for field in schemas:
            if field in faults:
                where, why = faults[field]
                raise wrong_field(".".join([field, *where]), why)

    async def faulty(self, schemas: Mapping[str, Any]) -> dict[str, Fault]:
        """Those that are no JSON Schemas. Behind one that cannot be looked at in time none is looked at."""
        faults: dict[str, Fault] = {}
        asked = {}
        for name, schema in schemas.items():
            try:
                digest = hashlib.sha256(json.dumps(schema).encode()).digest()
            except RecursionError:
                faults[name] = [], _DEEP
                continue
            if digest not in self._known:
                asked[name] = digest, schema
        return faults | (await self._found(asked) if asked else {})

    async def _found(self, asked: Mapping[str, tuple[bytes, Any]]) -> dict[str, Fault]:
        try:
            said = await _asked({"schemas": [schema for _, schema in asked.values()]})
        except TimeoutError:
            return {name: ([], _LONG) for name in asked}
        if said.code == fits.TOO_DEEP:
            return {name: ([], _DEEP) for name in asked}
        found = [json.loads(line) for line in said.stdout.decode().splitlines()]
        faults: dict[str, Fault] = {name: ([], _LONG) for name in [*asked][len(found) :]}
        for (name, (digest, _)), wrong in zip(asked.items(), found, strict=False):
            if wrong is None:
                self._keep(digest)
            else:
                where, why = wrong
                faults[name] = where, f"it is no JSON Schema: {why}"
        return faults

    def _keep(self, digest: bytes) -> None:
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[digest] = None


async def faults(schema: dict[str, Any], given: Any, named: str) -> str:
    """What is wrong with a value, in words for the model; empty: it fits.

    Args:
        named: what the schema is called.

    Raises:
        InvalidRequest: nothing can be held against that schema.
    """
    try:
        said = await _asked({"schemas": [schema], "given": given})
    except RecursionError:
        return _DEEP
    except TimeoutError:
        raise _endless(named) from None
    text = said.stdout.decode(errors="replace")
    if said.code == fits.TOO_DEEP:
        return _DEEP
    if said.code == fits.WRONG_SCHEMA:
        raise InvalidRequest(f"the {named} is wrong: {text}", hint="send another one")
    if said.code != 0:
        raise _endless(named)
    return text


async def _asked(question: dict[str, Any]) -> process.Completed:
    words = [sys.executable, "-I", "-m", fits.__name__]
    stdin = json.dumps({**question, "seconds": SECONDS}).encode()
    return await process.run(words, stdin=stdin, timeout=_WALL_SECONDS, check=False)


def _endless(named: str) -> InvalidRequest:
    return InvalidRequest(
        f"checking a result against the {named} takes more than {SECONDS} s",
        hint="patterns with repeats in repeats, and references back and forth, never come to an end",
    )
