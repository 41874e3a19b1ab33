"""The report log: every observation of this host, numbered (epoch, seq), kept for followers.

The epoch grows at each start of the host. Followers read the files themselves, so a slow one costs no
memory and one that comes back after a restart misses nothing that is still kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtools.platform.core.ports.host import Observed
from runtools.platform.host.engine.journal import Record
from runtools.platform.kit.files import write_number, write_whole
from runtools.sdk.shapes.sandboxes import QueuePlace

# Logs of former epochs are kept up to this many bytes in all; followers that were away for longer get
# the latest report of every sandbox instead.
KEPT_BYTES = 32 * 1024 * 1024
# A log past this size is continued under a new epoch's name.
SEGMENT_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class _Position:
    epoch: int
    offset: int


class Reports:
    """Writes the log of this epoch and lets others follow."""

    def __init__(self, folder: Path, epoch_file: Path) -> None:
        """Begin a new epoch; the number is durable before anything is reported under it."""
        self._folder = folder
        self._epoch_file = epoch_file
        former = int(epoch_file.read_text()) if epoch_file.exists() else 0
        self._fd = -1
        self._begin(former + 1)
        self._latest: dict[str, Observed] = {}
        self._news = asyncio.Event()

    @property
    def epoch(self) -> int:
        """Which start of this host it is."""
        return self._epoch

    def publish(self, record: Record, queue: QueuePlace | None = None) -> Observed:
        """Number an observation and append it."""
        if self._size > SEGMENT_BYTES:
            self._begin(self._epoch + 1)
        self._seq += 1
        seen = record.observed(self._epoch, self._seq)
        if queue is not None:
            seen = seen.model_copy(update={"queue": queue})
        line = seen.model_dump_json().encode() + b"\n"
        write_whole(self._fd, line)
        self._size += len(line)
        self._latest[seen.sandbox_id] = seen
        self._news.set()
        self._news = asyncio.Event()
        return seen

    def latest(self, sandbox_id: str) -> Observed | None:
        """The newest report of a sandbox; None where a full disk has taken none in this epoch yet."""
        return self._latest.get(sandbox_id)

    def preview(self, record: Record) -> Observed:
        """What the next report would say if it were about this record."""
        return record.observed(self._epoch, self._seq + 1)

    def forget(self, sandbox_id: str) -> None:
        """Stop naming a sandbox to new followers."""
        self._latest.pop(sandbox_id, None)

    async def follow(self, epoch: int, seq: int) -> AsyncIterator[Observed]:
        """Every report after (epoch, seq), then live ones; a foreign epoch gets the latest first."""
        news = self._news
        if self._file(epoch).exists():
            position = _Position(epoch, 0)
        else:
            position = _Position(self._epoch, self._size)
            epoch, seq = self._epoch, self._seq
            for seen in sorted(self._latest.values(), key=lambda one: (one.epoch, one.seq)):
                yield seen
        while True:
            for seen in self._read(position):
                if (seen.epoch, seen.seq) > (epoch, seq):
                    yield seen
            await news.wait()
            news = self._news

    async def sync(self) -> None:
        """Make what was reported so far outlive a power loss."""
        fd = os.dup(self._fd)  # the log may be continued in another file meanwhile
        try:
            await asyncio.to_thread(os.fsync, fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Stop writing."""
        os.close(self._fd)

    def _begin(self, epoch: int) -> None:
        write_number(self._epoch_file, str(epoch))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fresh = os.open(self._file(epoch), flags, 0o600)
        # Only now, when nothing can fail any more: what is written goes on in the former one until then.
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fresh
        self._epoch, self._seq, self._size = epoch, 0, 0
        self._prune()

    def _file(self, epoch: int) -> Path:
        return self._folder / f"{epoch}.jsonl"

    def _epochs(self) -> list[int]:
        return sorted(int(file.stem) for file in self._folder.glob("*.jsonl"))

    def _prune(self) -> None:
        room = KEPT_BYTES
        for epoch in reversed(self._epochs()):
            room -= self._file(epoch).stat().st_size
            if room < 0:
                self._file(epoch).unlink()

    def _read(self, position: _Position) -> Iterator[Observed]:
        """What lies between the position and the end of the log; moves the position along."""
        while True:
            file = self._file(position.epoch)
            if file.exists():
                with file.open("rb") as stream:
                    stream.seek(position.offset)
                    for line in stream:
                        if not line.endswith(b"\n"):
                            break  # torn by a power loss: nothing follows it in this file
                        position.offset += len(line)
                        yield Observed.model_validate_json(line)
            later = [epoch for epoch in self._epochs() if epoch > position.epoch]
            if not later:
                return
            position.epoch, position.offset = later[0], 0
