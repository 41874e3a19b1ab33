"""Warm snapshots of local machines: what `Warm` is to real ones.

There is nothing to warm: a local agent starts in milliseconds. What is kept is a file tree, so that
creates go the way that they go on a real host.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from runtools.platform.core.ports.driver import Driver, Machine, Slot
from runtools.platform.host.disk.files import copy_sparse
from runtools.platform.host.templates.images import Image
from runtools.platform.kit import files
from runtools.testing import local_run
from runtools.testing.local_place import Place

_DISK_MB = 2048
_MACHINE = "m"


class LocalWarm:
    """Warm snapshots made by a local driver.

    Args:
        folder: holds one folder a warm snapshot.
    """

    def __init__(self, folder: Path, driver: Driver) -> None:
        self._folder = folder
        self._driver = driver
        self._making = asyncio.Lock()

    async def reclaim(self) -> int:
        """At the start: end machines that were being warmed, and remove what is not whole."""
        halves = list(self._made().glob(".*"))
        for half in halves:
            await local_run.end(Place(half / _MACHINE / "vmm"))
            shutil.rmtree(half)
        return len(halves)

    async def find(self, image: Image, driver: Driver, vcpus: int, memory_mb: int) -> Path | None:
        """The warm snapshot of these sizes, if it was made."""
        at = self._at(image, vcpus, memory_mb)
        return at if (at / "warm.json").exists() else None

    def token(self, warm: Path) -> str:
        """What the agent of a clone asks of its first caller."""
        token: str = json.loads((warm / "warm.json").read_text())["token"]
        return token

    async def make(self, image: Image, vcpus: int, memory_mb: int) -> Path:
        """Boot a machine, capture it, end it."""
        at = self._at(image, vcpus, memory_mb)
        async with self._making:
            if (at / "warm.json").exists():
                return at
            with tempfile.TemporaryDirectory(dir=self._made(), prefix=".") as scratch:
                machine = _scratch_machine(image, Path(scratch) / _MACHINE, vcpus, memory_mb)
                into = Path(scratch) / "warm"
                into.mkdir()
                await self._driver.boot(machine)
                try:
                    await self._driver.capture(machine, into, lambda: _copy(machine, into))
                finally:
                    await self._driver.kill(machine)
                words = {"token": machine.boot_token, **self._driver.fingerprint(machine)}
                files.write_atomic(into / "warm.json", json.dumps(words).encode())
                into.rename(at)
        return at

    def used_bytes(self) -> int:
        """What all of them take on the disk."""
        return sum(f.stat().st_blocks * 512 for f in self._folder.rglob("*") if f.is_file())

    def unfinished_bytes(self) -> int:
        """What those in the making take on the disk so far."""
        return sum(f.stat().st_blocks * 512 for f in self._folder.glob(".*/**/*") if f.is_file())

    async def prune(self, limit_bytes: int, keep: Collection[Path] = ()) -> int:
        """Remove the oldest until all take less than a limit; returns how many went."""
        gone = 0
        for at in sorted(self._folder.iterdir(), key=lambda each: each.stat().st_mtime):
            if self.used_bytes() > limit_bytes and at not in keep:
                shutil.rmtree(at)
                gone += 1
        return gone

    def _at(self, image: Image, vcpus: int, memory_mb: int) -> Path:
        return self._folder / f"{image.version_id}-{vcpus}x{memory_mb}"

    def _made(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder


async def _copy(machine: Machine, into: Path) -> None:
    await copy_sparse(machine.overlay, into / "overlay.img")


def _scratch_machine(image: Image, folder: Path, vcpus: int, memory_mb: int) -> Machine:
    folder.mkdir()
    overlay = folder / "overlay.img"
    with overlay.open("wb") as file:
        file.truncate(_DISK_MB << 20)
    return Machine(
        id=f"warm-{image.version_id}",
        folder=folder,
        vcpus=vcpus,
        memory_mb=memory_mb,
        base=image.base,
        kernel=image.kernel,
        initrd=image.initrd,
        overlay=overlay,
        uid=0,
        slot=Slot("", "", 0),
        boot_token=secrets.token_hex(32),
    )
