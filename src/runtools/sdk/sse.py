"""Server-sent events, read as they arrive: bytes in, whole events out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtools.errors import VersionMismatch

MAX_EVENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``id`` is the last one that the stream named, and resumes after it."""

    name: str
    data: str
    id: str | None


class Parser:
    """Turns the bytes of one response into events. Comments (keep-alive) are dropped."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that the chunk completes.

        Raises:
            VersionMismatch: an event larger than any the platform sends, or no UTF-8.
        """
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        self._bound(len(self._rest))
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                yield event

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._complete()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        try:
            self._field(name, value.decode())
        except UnicodeDecodeError:
            raise VersionMismatch("an event of the platform is not UTF-8") from None
        return None

    def _field(self, name: bytes, value: str) -> None:
        if name == b"data":
            self._size += len(value)
            self._bound(self._size)
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name == b"id" and "\0" not in value:
            self._id = value

    def _complete(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self._size = "", [], 0
        return Event(name, "\n".join(data), self._id) if data else None

    @staticmethod
    def _bound(size: int) -> None:
        if size > MAX_EVENT_BYTES:
            raise VersionMismatch(f"an event of the platform exceeds {MAX_EVENT_BYTES} bytes")
