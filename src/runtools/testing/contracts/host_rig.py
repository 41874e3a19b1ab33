"""What the host suite needs around a host: words for orders, commands and files."""

from __future__ import annotations

import asyncio
import io
import itertools
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from runtools.errors import NotFound
from runtools.platform.core.ids import new_id, new_sandbox_id
from runtools.platform.core.ports.host import CreateOrder, Guest, Host, Observed, Sizes
from runtools.sdk.shapes.inside import ExecRequest, ExecResult

ACTOR = "key_contract"
DEADLINE = 30.0


@dataclass
class HostRig:
    """One host with a template version that is ready.

    Attributes:
        host: whom the suite is about.
        template: the id of the version.
        patience: seconds within which anything must have happened.
    """

    host: Host
    template: str
    patience: float = DEADLINE
    _made: list[str] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def order(self, **changes: Any) -> CreateOrder:
        """A create of one more sandbox."""
        fields: dict[str, Any] = {
            "op": self.op(),
            "sandbox_id": new_sandbox_id(),
            "actor": ACTOR,
            "template_version_id": self.template,
            "sizes": Sizes(vcpus=1, memory_mb=256, disk_mb=1024),
            "guest": Guest(env={"GREETING": "hello"}),
            "internet": False,
            "idle_timeout_seconds": 0,
            "max_lifetime_seconds": None,
            "require_isolation": None,
            "queue": True,
        }
        order = CreateOrder(**{**fields, **changes})
        self._made.append(order.sandbox_id)
        return order

    def op(self) -> str:
        """An op id that nobody used."""
        return new_id("opn")

    def child(self) -> str:
        """The id of a sandbox to be."""
        self._made.append(new_sandbox_id())
        return self._made[-1]

    async def running(self, **changes: Any) -> str:
        """The id of a fresh sandbox that runs."""
        seen = await self.host.create(self.order(**changes))
        assert (seen.state, seen.operation) == ("running", None)
        return seen.sandbox_id

    async def paused(self) -> str:
        """The id of a fresh sandbox that is paused."""
        box = await self.running()
        assert (await self.pause(box)).state == "paused"
        return box

    async def destroyed(self) -> str:
        """The id of a sandbox that was destroyed."""
        box = await self.running()
        assert (await self.destroy(box)).state == "stopped"
        return box

    async def pause(self, box: str) -> Observed:
        """Pause it."""
        return await self.host.pause(box, self.op(), ACTOR)

    async def resume(self, box: str) -> Observed:
        """Resume it."""
        return await self.host.resume(box, self.op(), ACTOR)

    async def destroy(self, box: str) -> Observed:
        """Destroy it."""
        return await self.host.destroy(box, self.op(), ACTOR)

    async def snapshot(self, box: str) -> str:
        """The id of a fresh snapshot of it."""
        kept = await self.host.snapshot(box, self.op(), ACTOR, new_id("snp"))
        return kept.snapshot_id

    async def counts(self) -> dict[str, float]:
        """What the host has counted: numbers by name and labels."""
        return {
            " ".join([one.name, *one.labels.values()]): one.value
            for family in await self.host.metrics()
            for one in family.samples
        }

    async def state(self, box: str) -> str:
        """Its state once nothing is under way."""
        return (await self.host.settled(box, self.patience)).state

    async def exec(self, box: str, command: str | list[str], **more: Any) -> ExecResult:
        """Run a command."""
        wish = {"process_id": new_id("prc"), **more}
        return await self.host.exec(box, ExecRequest(command=command, **wish))

    async def sh(self, box: str, command: str) -> str:
        """What a shell line prints; it must succeed."""
        result = await self.exec(box, command)
        assert result.exit_code == 0, result
        return result.stdout.strip()

    async def put(self, box: str, path: str, data: bytes) -> None:
        """Make a file."""
        await self.host.write(box, self.op(), path, chunks(data), None, "replace")

    async def get(self, box: str, path: str, start: int = 0, end: int | None = None) -> bytes:
        """A file's bytes."""
        _, body = await self.host.read(box, path, start, end)
        return await joined(body)

    async def follow(
        self, epoch: int, seq: int, enough: Callable[[list[Observed]], bool]
    ) -> list[Observed]:
        """Reports after a place until there are enough."""
        seen: list[Observed] = []
        stream = self.host.reports(epoch, seq)
        try:
            async with asyncio.timeout(self.patience):
                async for report in stream:
                    seen.append(report)
                    if enough(seen):
                        break
        finally:
            await close(stream)
        return seen

    async def clean(self) -> None:
        """Destroy what was made."""
        for box in self._made:
            seen = await self._look(box)
            if seen is not None and seen.state != "stopped":
                await self.destroy(box)

    async def _look(self, box: str) -> Observed | None:
        try:
            return await self.host.settled(box, self.patience)
        except NotFound:
            return None


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body."""
    for piece in pieces:
        yield piece


async def joined(body: AsyncIterator[bytes]) -> bytes:
    """A body's bytes."""
    return b"".join([piece async for piece in body])


async def close(stream: AsyncIterator[Any]) -> None:
    """Close what the port promises as an iterator, and every host gives as more."""
    await stream.aclose()  # type: ignore[attr-defined]


def tar_of(files: dict[str, bytes]) -> bytes:
    """An archive of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def files_of(archive: bytes) -> dict[str, bytes]:
    """The files of an archive."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            if (file := members.extractfile(member)) is not None:
                found[member.name] = file.read()
    return found
