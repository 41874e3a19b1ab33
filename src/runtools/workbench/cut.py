"""Results that are too long for a model: cut in the middle, and said to be."""

from __future__ import annotations

_HEAD = 0.4  # what came last usually says more: errors, totals


def cut(text: str, most: int, kept: str) -> str:
    """The text, or its beginning and end with a word between about what is missing.

    Args:
        text: what is shown.
        most: characters.
        kept: where the whole of it can be read.
    """
    if len(text) <= most:
        return text
    head = round(most * _HEAD)
    tail = most - head
    begin = text[:head].rpartition("\n")[0] or text[:head]
    end = text[-tail:].partition("\n")[2] or text[-tail:]
    missing = text[len(begin) : len(text) - len(end)]
    lines = missing.count("\n")
    return f"{begin}\n[{len(missing)} characters ({lines} lines) left out here; {kept}]\n{end}"


def first_lines(lines: list[str], most: int, rest: str) -> str:
    """As many whole lines from the front as fit, and how many there are beyond; of one that does not fit
    alone its beginning, and how much is missing.

    Args:
        lines: without their ends.
        most: characters.
        rest: how the others can be seen.
    """
    shown: list[str] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if shown and size > most:
            break
        shown.append(line if len(line) <= most else _begin(line, most))
    more = len(lines) - len(shown)
    return "\n".join([*shown, f"[{more} more lines; {rest}]"] if more else shown)


def _begin(line: str, most: int) -> str:
    left = len(line) - most
    return f"{line[:most]}\n[{left} characters of this line left out here; bash with cut -c shows them]"
