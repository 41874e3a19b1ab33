"""A JSON object that a command is given as text."""

from __future__ import annotations

import json
from typing import Any

from runtools.errors import InvalidRequest


def parsed(text: str, what: str) -> dict[str, Any]:
    """What it says.

    Raises:
        InvalidRequest: it is no JSON object; the message begins with what it is.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"{what} is no JSON: {exc}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{what} is no JSON object")
    return found
