"""Numbers and times as people say them; texts from inside a sandbox made harmless."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtools.sdk.shapes.sandboxes import QueuePlace

ORIGINS = {
    "warm": "from a warm snapshot",
    "cold": "booted cold",
    "fork": "forked",
    "recovery": "from the disk of an ended one",
}
# Emoji and some scripts are written with the two joiners.
_LEFT = "\t\n\u200c\u200d"
_UNITS = ("B", "KB", "MB", "GB", "TB")
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def size(count: float) -> str:
    """Bytes, e.g. ``1.4 GB`` (2**30)."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return (
        f"{count:.0f} {_UNITS[unit]}"
        if unit == 0 or count >= 100
        else f"{count:.1f} {_UNITS[unit]}"
    )


def megabytes(count: int) -> str:
    """Megabytes of 2**20 bytes."""
    return size(count * 1024 * 1024)


def span(seconds: float) -> str:
    """A length of time by its largest unit or two, e.g. ``3 h 12 min``, ``1.25 s``, ``28 ms``."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    left, parts = round(seconds), []
    for length, unit in _SPANS:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def place(queue: QueuePlace) -> str:
    """Where somebody stands in a queue, and for how long where that is known."""
    if queue.estimated_wait_seconds is None:
        return f"place {queue.position} in the queue; nobody can tell yet for how long"
    return f"place {queue.position} in the queue, about {span(queue.estimated_wait_seconds)}"


def age(then: datetime, now: datetime) -> str:
    """How long ago, by the largest unit."""
    passed = max((now - then).total_seconds(), 0)
    return next((f"{int(passed // n)} {unit}" for n, unit in _SPANS if passed >= n), "now")


def clock(at: datetime) -> str:
    """The time of day, here."""
    return at.astimezone().strftime("%H:%M:%S")


def day(at: datetime) -> str:
    """The day, here."""
    return at.astimezone().strftime("%a %d %b %Y")


def moment(at: datetime | None) -> str:
    """A day and a time, here."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def between(start: datetime, end: datetime) -> float:
    """Seconds from the one to the other."""
    return (end - start) / timedelta(seconds=1)


def harmless(text: str) -> str:
    """Text from a sandbox without what would steer a terminal; tabs and line ends stay."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter in _LEFT or unicodedata.category(letter) not in ("Cc", "Cf", "Cs") else "�"
        for letter in text.replace("\r\n", "\n")
    )


def harmless_data(value: Any) -> Any:
    """Texts wherever they are in some JSON, likewise."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, list):
        return [harmless_data(one) for one in value]
    if isinstance(value, dict):
        return {harmless(name): harmless_data(one) for name, one in value.items()}
    return value


def harmless_name(text: str) -> str:
    """The name of a file in a sandbox, likewise, and on one line: names may have line ends in them."""
    return harmless(text).replace("\n", "�").replace("\t", "�")


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 sandbox``, ``2 sandboxes``."""
    return f"{count} {one if count == 1 else many or one + 's'}"
