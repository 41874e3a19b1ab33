"""The log of one build: kept as JSON lines beside the image, and followed while it grows.

What the disk refuses of it is followed all the same, and written with the next line that it takes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from runtools.platform.kit.clock import Clock
from runtools.platform.kit.files import write_whole
from runtools.sdk.shapes.templates import BuildLine

_log = logging.getLogger(__name__)

_MAX_LINES = 200_000
_MAX_BYTES = 16 << 20  # of texts, as they are written
_CUT = "… the rest of what is said was cut"


class BuildLog:
    """Lines numbered from 1. One writer; any number of readers."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._lines = read_log(file)
        self._kept = len(self._lines)
        self._bytes = 0
        self._is_cut = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(file, flags, 0o600)  # a script may print secrets
        self._grown = asyncio.Event()
        self._ended = False
        self._progress = 0.0
        self._share = (0.0, 0.0)
        self.step_name = ""

    @property
    def progress(self) -> float:
        """How far the build is, 0 to 1."""
        return self._progress

    def step(self, name: str, start: float, end: float) -> None:
        """Begin a step that reaches from one progress to another."""
        self.step_name = name
        self._share = (start, end)
        self._progress = max(self._progress, start)
        self.line(f"== {name}", always=True)

    def part(self, done: float) -> None:
        """How far the step is, 0 to 1."""
        start, end = self._share
        now = start + (end - start) * min(max(done, 0.0), 1.0)
        self._progress = max(self._progress, now)

    def line(self, text: str, *, always: bool = False) -> None:
        """Add a line, or several. A build that says very much is cut, and the log says so.

        Of what is written over with carriage returns, as bars of progress are, the last is kept.
        ``always``: it is there all the same.
        """
        said = len(self._lines)
        for one in _shown(text):
            self._add(one, always=always)
        if len(self._lines) == said:
            return
        try:
            self.save()
        except OSError as exc:
            _log.warning("%s could not be written yet: %s", self._file, exc)
        self._wake()

    def _add(self, text: str, *, always: bool) -> None:
        if not always:
            if self._is_cut:
                return
            self._bytes += len(json.dumps(text, ensure_ascii=False).encode())
            self._is_cut = len(self._lines) >= _MAX_LINES or self._bytes > _MAX_BYTES
            text = _CUT if self._is_cut else text
        entry = BuildLine(
            n=len(self._lines) + 1,
            at=self._clock.now(),
            progress=round(self._progress, 3),
            step=self.step_name,
            text=text,
        )
        self._lines.append(entry)

    def save(self) -> None:
        """Write down what is not yet; the file is closed with the last line.

        Raises:
            OSError: the disk does not take it; it stays to be written.
        """
        lines = self._lines[self._kept :]
        if lines:
            write_whole(self._fd, "".join(f"{line.model_dump_json()}\n" for line in lines).encode())
            self._kept += len(lines)
        if self._ended and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def texts(self, step: str) -> list[str]:
        """What was said during a step."""
        return [line.text for line in self._lines if line.step == step]

    def end(self) -> None:
        """Nothing more will come. What could not be written yet, `save` may still be asked for."""
        self._ended = True
        if self._kept == len(self._lines):
            self.save()
        self._wake()

    async def follow(self, after: int) -> AsyncIterator[BuildLine]:
        """Every line after position ``after``, until the build has ended."""
        at = max(after, 0)
        while True:
            grown = self._grown
            while at < len(self._lines):
                yield self._lines[at]
                at += 1
            if self._ended:
                return
            await grown.wait()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


def _shown(text: str) -> list[str]:
    """The lines that a terminal would show in the end."""
    ends = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(ends).splitlines() or [""]


def read_log(file: Path) -> list[BuildLine]:
    """The lines of a kept log, up to one that a crash or a power loss has damaged."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lines = []
    for line in whole.splitlines():
        try:
            lines.append(BuildLine.model_validate_json(line))
        except ValidationError:
            break
    return lines


def duration(start: datetime, end: datetime) -> str:
    """A time span for people: ``1 min 12 s``."""
    seconds = round((end - start).total_seconds())
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
