"""What a sandbox was refused: a bounded log in its folder, that outlives pauses, restarts and its end.

Refusals that differ in nothing but the moment are one line with a count. The line that was not met for
the longest time gives way to a new one, and is counted. The file is written a moment after the log has
changed: a crash in between loses that moment, a power loss some more. A guest that goes on being refused
has it written every second, beside a disk that others may have made slow: so nothing waits for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from runtools.platform.core.ports.network import Refusal, unheard
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.files import write_atomic
from runtools.platform.kit.unbroken import to_its_end
from runtools.sdk.shapes.egress import EgressLog, EgressRefusal, RefusalReason

log = logging.getLogger(__name__)

FILE = "egress.json"
LINES = 500
_SAVE_SECONDS = 1.0

HINTS: Mapping[RefusalReason, str] = {
    "encrypted_hello": "switch encrypted hellos (ECH) off in the program that connects; "
    "docs/networking.md says how browsers do",
    "host_full": "connections of all sandboxes fill the host: close some that it holds open, or try later; "
    "docs/networking.md says how large its own share is",
    "quic": "the program falls back to TCP by itself, or QUIC can be switched off in it",
}
"""What to do about refusals that surprise."""


class Refusals:
    """One sandbox's log."""

    def __init__(
        self, folder: Path, clock: Clock, counted: Callable[[Refusal], None] = unheard
    ) -> None:
        """``counted`` is told of each as it comes."""
        self._file = folder / FILE
        self._clock = clock
        self._counted = counted
        self._lines: OrderedDict[Refusal, EgressRefusal] | None = None
        self._forgotten = 0
        self._changed = False
        self._saving: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def add(self, refusal: Refusal) -> None:
        """Take down one more, or as many as it stands for."""
        self._counted(refusal)
        lines, now = self._loaded(), self._clock.now()
        known = lines.pop(refusal, None)
        first, count = (known.first_at, known.count) if known else (now, 0)
        lines[refusal] = EgressRefusal(
            reason=refusal.reason,
            protocol=refusal.protocol,
            name=refusal.name,
            address=refusal.address,
            port=refusal.port,
            count=count + refusal.times,
            hint=HINTS.get(refusal.reason),
            first_at=first,
            last_at=now,
        )
        if len(lines) > LINES:
            self._forgotten += lines.popitem(last=False)[1].count
        self._changed = True
        if self._saving is None:
            self._saving = asyncio.create_task(self._save_on(), name=f"saving {self._file}")

    def view(self) -> EgressLog:
        """All lines, the latest first."""
        lines = self._loaded().values()
        return EgressLog(refusals=list(reversed(lines)), forgotten=self._forgotten)

    async def close(self) -> None:
        """Write down what has changed since it last was."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        await self._save()

    async def _save_on(self) -> None:
        """Save a moment after each change, and not twice at once."""
        while self._changed:
            await asyncio.sleep(_SAVE_SECONDS)
            await self._save()
        self._saving = None

    async def _save(self) -> None:
        async with self._writing:
            if self._changed:
                self._changed = False
                await to_its_end(asyncio.to_thread(self._write, self.view()))

    def _write(self, view: EgressLog) -> None:
        try:
            write_atomic(self._file, view.model_dump_json().encode(), durable=False)
        except OSError as exc:  # its folder went, or the disk is full
            log.warning("%s could not be written: %s", self._file, exc)

    def _loaded(self) -> OrderedDict[Refusal, EgressRefusal]:
        if self._lines is None:
            self._lines = OrderedDict()
            kept = _read(self._file)
            self._forgotten = kept.forgotten
            for line in reversed(kept.refusals):
                key = Refusal(line.reason, line.protocol, line.name, line.address, line.port)
                self._lines[key] = line
        return self._lines


def _read(file: Path) -> EgressLog:
    try:
        return EgressLog.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as exc:
        log.warning("%s is not read: %s", file, exc)
    return EgressLog(refusals=[], forgotten=0)
