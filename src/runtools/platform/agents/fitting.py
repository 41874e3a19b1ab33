"""Whether what a run was to end with fits its schema: asked of a process that may be killed (`fits`).

A schema is somebody's own, and checking against one can take for ever; the worker has other runs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from runtools.errors import InvalidRequest
from runtools.platform.agents import fits
from runtools.platform.kit import process

SECONDS = 5
"""Of processor time, for one question."""
_WALL_SECONDS = 60.0


async def faults(schema: dict[str, Any], given: Any) -> str:
    """What is wrong with a value, in words for the model; empty: it fits.

    Raises:
        InvalidRequest: nothing can be held against that schema.
    """
    try:
        asked = json.dumps({"schema": schema, "given": given, "seconds": SECONDS}).encode()
    except RecursionError:
        return "it is nested too deeply"
    words = [sys.executable, "-I", "-m", fits.__name__]
    try:
        said = await process.run(words, stdin=asked, timeout=_WALL_SECONDS, check=False)
    except TimeoutError:
        raise _endless() from None
    text = said.stdout.decode(errors="replace")
    if said.code == fits.WRONG_SCHEMA:
        raise InvalidRequest(f"the outputSchema is wrong: {text}", hint="send another one")
    if said.code != 0:
        raise _endless()
    return text


def _endless() -> InvalidRequest:
    return InvalidRequest(
        f"checking a result against the outputSchema takes more than {SECONDS} s",
        hint="patterns with repeats in repeats, and references back and forth, never come to an end",
    )
