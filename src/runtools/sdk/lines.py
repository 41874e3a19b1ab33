"""JSON in one line, also to readers that take other characters for the ends of lines, as Python's do."""

from __future__ import annotations

import re

_ENDS = re.compile("[\x85\u2028\u2029]")


def one_line(text: str) -> str:
    """JSON without line feeds, with those characters as escapes."""
    return _ENDS.sub(lambda one: f"\\u{ord(one[0]):04x}", text)
