"""What the value of a header may hold. Pure."""

from __future__ import annotations

import re

_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")


def may_hold(value: str) -> bool:
    """Whether a header may have this value: ASCII without line ends, and no space at either end."""
    return _VALUE.fullmatch(value) is not None
