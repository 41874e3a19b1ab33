"""What an edit changes, and what it may have meant: found in time that grows with the text alone. Pure.

A worker has many runs and one loop: a search for likenesses that takes the square of a file's length would
stop them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

_AROUND = 3
_NEAR = 0.6
_LOOKED_AT, _COMPARED = 50_000, 20
_LETTERS = 300


def changed(before: str, old: str, new: str, most: int) -> str:
    """Every place where a text is replaced by another, as a diff; not much more than so many characters."""
    lines = before.removesuffix("\n").split("\n")
    shown: list[str] = []
    size = moved = 0
    for first, was, now in _places(before, old, new):
        last = first + len(was)
        hunk = [
            f"@@ line {first + 1}, now {first + moved + 1} @@",
            *(f" {line}" for line in lines[max(first - _AROUND, 0) : first]),
            *(f"-{line}" for line in was),
            *(f"+{line}" for line in now),
            *(f" {line}" for line in lines[last : last + _AROUND]),
        ]
        shown += hunk
        moved += len(now) - len(was)
        size += sum(map(len, hunk)) + len(hunk)
        if size > most:
            break
    return "\n".join(shown)


def _places(before: str, old: str, new: str) -> Iterator[tuple[int, list[str], list[str]]]:
    """Lines that change together: the number of the first, how they were, and how they are then."""
    at, done, line = before.find(old), 0, 0
    while at >= 0:
        begin = before.rfind("\n", 0, at) + 1
        line += before.count("\n", done, begin)
        done, last, pieces = begin, begin, []
        end = begin
        while 0 <= at <= end or last == begin:
            pieces += [before[last:at], new]
            last = at + len(old)
            if last > end or end == begin:
                end = before.find("\n", last)
                end = len(before) if end < 0 else end
            at = before.find(old, last)
        now = "".join([*pieces, before[last:end]]).split("\n")
        yield _tight(line, before[begin:end].split("\n"), now)


def _tight(line: int, was: list[str], now: list[str]) -> tuple[int, list[str], list[str]]:
    """Without the lines in front and at the end that stay."""
    front = 0
    while front < min(len(was), len(now)) and was[front] == now[front]:
        front += 1
    back = 0
    while back < min(len(was), len(now)) - front and was[-1 - back] == now[-1 - back]:
        back += 1
    return line + front, was[front : len(was) - back], now[front : len(now) - back]


def nearest(text: str, old: str) -> str:
    """A word about where something like it stands, so that a model sees what differs."""
    first = next((line for line in old.strip().splitlines() if line.strip()), "")[:_LETTERS]
    squeezed = " ".join(old.split())
    if squeezed and squeezed in " ".join(text.split()):
        return ": only the white space differs. read_file shows it exactly"
    words = set(first.split())
    lines = text.split("\n")
    likely: list[tuple[float, int]] = []
    for number, line in enumerate(lines[:_LOOKED_AT]):
        there = set(line[:_LETTERS].split())
        shared = len(words & there) / max(len(words | there), 1)
        likely.append((shared - abs(len(line) - len(first)) / 1e6, -number))
    best, found = _NEAR, None
    for _, number in sorted(likely, reverse=True)[:_COMPARED]:
        line = lines[-number][:_LETTERS]
        ratio = difflib.SequenceMatcher(None, line, first, autojunk=False).ratio()
        if ratio >= best and (found is None or ratio > best):
            best, found = ratio, -number
    if found is None:
        return ". read_file shows what it holds"
    return f". Line {found + 1} is like its first: {lines[found][:200]!r}"
