"""Warm snapshots: machines captured when idle, from which sandboxes are cloned.

    home/warm/<version>-<driver>-<vcpus>x<memory>/   what the driver captured, overlay.img, warm.json
    home/warm/.making-<the same>/                    one in the making, with the machine it comes from

One is kept per template version, driver and size, and goes when it was not used for longest and all
take more than they may, or when it no longer fits what would restore it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from runtools.errors import BuildFailed, CapacityExhausted
from runtools.platform.core.egress import SHUT
from runtools.platform.core.ports.driver import Driver, Machine, Slot, VmmFailed
from runtools.platform.core.ports.network import Network
from runtools.platform.host.disk.files import copy_sparse, make_overlay, sync
from runtools.platform.host.disk.trees import used_bytes
from runtools.platform.host.templates.images import Image
from runtools.platform.host.templates.warming import rehearse
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.crash import crash_point
from runtools.platform.kit.files import write_atomic
from runtools.platform.kit.unbroken import to_its_end
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.sandboxes import DEFAULT_DISK_MB

_log = logging.getLogger(__name__)

_OVERLAY = "overlay.img"
_RECORD = "warm.json"
_MACHINE = "machine.json"
_MAKING = ".making-"
_GONE = ".gone-"
_PASSABLE = 0o711
# Somebody who was just handed one may not have opened its files yet.
_JUST_USED_SECONDS = 30.0


class _Kept(Shape):
    """What is known of one warm snapshot."""

    version_id: str
    fingerprint: dict[str, str]
    token: str
    size_bytes: int


class _InTheMaking(Shape):
    """A machine that is being warmed: enough to end it after a crash."""

    machine_id: str
    folder: Path
    image: Path
    vcpus: int
    memory_mb: int
    uid: int
    namespace: str
    tap: str
    index: int


class Warm:
    """The warm snapshots of one host.

    Args:
        home: the host part's home; they lie in ``warm`` below it.
        driver: boots and captures them.
        network: gives a machine that is being warmed a network (without internet).
        clock: for waiting.
        uids: the users that such machines' VMMs run as, one each.
        limit_bytes: what all of them may take on disk, kept after each new one.
        keep_free: bytes that stay free on the disk whatever is captured.
    """

    def __init__(
        self,
        home: Path,
        driver: Driver,
        network: Network,
        clock: Clock,
        *,
        uids: Sequence[int],
        limit_bytes: int,
        keep_free: int = 0,
    ) -> None:
        self._folder = home / "warm"
        self._driver = driver
        self.network = network
        self._clock = clock
        self._uids = uids
        self._running_as: set[int] = set()
        self._limit = limit_bytes
        self._keep_free = keep_free
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(_PASSABLE)
        self._kept = dict(_read(self._folder))
        self._used = {path: (path / _RECORD).stat().st_mtime for path in self._kept}
        self._handed: dict[Path, float] = {}
        self._making: dict[Path, asyncio.Lock] = {}
        self._forgotten: set[str] = set()

    async def reclaim(self) -> int:
        """At the start: end machines that were being warmed, and remove what is not whole."""
        count = 0
        for folder in list(self._folder.iterdir()):
            if folder in self._kept:
                continue
            try:
                await self._clear(folder)
            except VmmFailed as exc:  # it keeps what it has, and nobody from starting
                _log.error("%s of an earlier start is kept: %s", folder.name, exc)
                continue
            count += 1
        return count

    async def find(self, image: Image, driver: Driver, vcpus: int, memory_mb: int) -> Path | None:
        """The warm snapshot to clone from, if there is one that can still be restored.

        One that cannot is named in the log and removed.
        """
        path = self._at(image, driver, vcpus, memory_mb)
        kept = self._kept.get(path)
        if kept is None:
            return None
        now = dict(driver.fingerprint(self._machine(image, vcpus, memory_mb)))
        if now != kept.fingerprint:
            changed = sorted(
                k for k in {*now, *kept.fingerprint} if now.get(k) != kept.fingerprint.get(k)
            )
            _log.warning("warm snapshot %s is unfit: %s changed", path.name, ", ".join(changed))
            await self._remove(path)
            return None
        self._used[path] = self._clock.now().timestamp()
        self._handed[path] = self._clock.monotonic()
        os.utime(path / _RECORD, (self._used[path],) * 2)
        return path

    def token(self, warm: Path) -> str:
        """What the agent of a clone asks of its first caller."""
        return self._kept[warm].token

    async def make(
        self, image: Image, vcpus: int, memory_mb: int, say: Callable[[str], None] = _log.info
    ) -> Path:
        """Make a warm snapshot, or return the one that fits; whoever comes meanwhile waits for it.

        Raises:
            BuildFailed: the machine did not come up, or could not be captured, for want of room, too; or
                the version has been forgotten meanwhile.
        """
        path = self._at(image, self._driver, vcpus, memory_mb)
        async with self._making.setdefault(path, asyncio.Lock()):
            found = await self.find(image, self._driver, vcpus, memory_mb)
            if found is None:
                await self._make(path, image, vcpus, memory_mb, say)
                await self.prune(self._limit, (path,))
        return path

    def used_bytes(self) -> int:
        """What all of them take on disk."""
        return sum(kept.size_bytes for kept in self._kept.values())

    def unfinished_bytes(self) -> int:
        """What those in the making take on disk so far."""
        return sum(used_bytes(folder) for folder in list(self._folder.glob(f"{_MAKING}*")))

    async def prune(self, limit_bytes: int, keep: Collection[Path] = ()) -> int:
        """Remove the longest unused until all take no more than a limit; returns how many went."""
        now = self._clock.monotonic()
        count = 0
        for path in sorted(self._kept, key=lambda each: self._used[each]):
            if self.used_bytes() <= limit_bytes:
                break
            if path in keep or now - self._handed.get(path, -1e9) < _JUST_USED_SECONDS:
                continue
            count += await self._remove(path)
        return count

    async def forget(self, version_id: str) -> None:
        """Remove those of a template version that is there no more; none is made of it afterwards."""
        self._forgotten.add(version_id)
        for path in [p for p, kept in self._kept.items() if kept.version_id == version_id]:
            await self._remove(path)

    async def _make(
        self, path: Path, image: Image, vcpus: int, memory_mb: int, say: Callable[[str], None]
    ) -> None:
        work = path.with_name(_MAKING + path.name)
        capture = work / "capture"
        uid = self._free_uid()
        self._running_as.add(uid)
        try:
            await self._clear(work)
            for folder in (work, work / "machine", capture):
                folder.mkdir()
                folder.chmod(_PASSABLE)
            machine = self._machine(image, vcpus, memory_mb, work / "machine", uid)
            await make_overlay(machine.overlay, DEFAULT_DISK_MB)
            if os.geteuid() == 0:
                os.chown(machine.overlay, uid, uid)
            token = await self._capture(machine, capture, work / _MACHINE, say, image.rehearsal)
            await asyncio.to_thread(shutil.rmtree, machine.folder)
            kept = _Kept(
                version_id=image.version_id,
                fingerprint=dict(self._driver.fingerprint(machine)),
                token=token,
                size_bytes=used_bytes(capture),
            )
            write_atomic(capture / _RECORD, kept.model_dump_json().encode())
            await sync([capture])
            if image.version_id in self._forgotten:
                raise BuildFailed(f"no warm snapshot: {image.slug}@{image.version} was deleted")
            capture.rename(path)
            self._kept[path] = kept
            self._used[path] = self._clock.now().timestamp()
        except VmmFailed as exc:
            raise BuildFailed(f"no warm snapshot: {exc}") from exc
        except CapacityExhausted as exc:
            raise BuildFailed(f"no warm snapshot: {exc.message}", hint=exc.hint) from exc
        finally:
            self._running_as.discard(uid)
            if not (work / _MACHINE).exists():  # else its machine is still to be ended
                await to_its_end(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))
        say(f"warm snapshot {path.name}: {kept.size_bytes >> 20} MB")

    async def _capture(
        self,
        machine: Machine,
        into: Path,
        note: Path,
        say: Callable[[str], None],
        rehearsal: Sequence[Sequence[str]],
    ) -> str:
        """Boot, rehearse, capture, end. The note says what a crash in between leaves behind."""
        slot = await self.network.open(SHUT)
        try:
            machine = replace(machine, slot=slot)
            write_atomic(note, _note_of(machine).model_dump_json().encode(), durable=False)
            crash_point("warm.network")
            try:
                await self._driver.boot(machine)
                crash_point("warm.booted")
                token = await rehearse(self._driver, machine, self._clock, say, rehearsal)

                async def copy_disk() -> None:
                    await copy_sparse(machine.overlay, into / _OVERLAY, self._keep_free)

                await self._driver.capture(machine, into, copy_disk, self._keep_free)
                crash_point("warm.captured")
            finally:
                await to_its_end(self._end(machine, note))
        finally:
            await to_its_end(self.network.close(slot))
        return token

    async def _end(self, machine: Machine, note: Path) -> None:
        """End a machine that was warmed; one that cannot be is known as long as it is there."""
        await self._driver.kill(machine)
        note.unlink()

    async def _clear(self, work: Path) -> None:
        """Remove one in the making, and first end its machine, should that still be there."""
        if (note := _noted(work / _MACHINE)) is not None:
            await self._driver.kill(_machine_again(note))
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    def _free_uid(self) -> int:
        for uid in self._uids:
            if uid not in self._running_as and self._driver.vacant(uid):
                return uid
        raise BuildFailed(
            f"no warm snapshot: {len(self._uids)} are being made",
            hint="try again when one of them is done",
        )

    def _at(self, image: Image, driver: Driver, vcpus: int, memory_mb: int) -> Path:
        return self._folder / f"{image.version_id}-{driver.name}-{vcpus}x{memory_mb}"

    def _machine(
        self,
        image: Image,
        vcpus: int,
        memory_mb: int,
        folder: Path | None = None,
        uid: int = 0,
    ) -> Machine:
        place = folder or self._folder
        return Machine(
            id=f"warm-{image.version_id}-{vcpus}x{memory_mb}",
            folder=place,
            vcpus=vcpus,
            memory_mb=memory_mb,
            base=image.base,
            kernel=image.kernel,
            initrd=image.initrd,
            overlay=place / _OVERLAY,
            uid=uid,
            slot=Slot("", "", 0),
            boot_token=secrets.token_hex(32) if folder else "",
        )

    async def _remove(self, path: Path) -> bool:
        """Out of sight first: what is left of a removal that was cut off is reclaimed.

        False where somebody else has removed it meanwhile.
        """
        if self._kept.pop(path, None) is None:
            return False
        self._used.pop(path, None)
        self._handed.pop(path, None)
        gone = path.with_name(f"{_GONE}{secrets.token_hex(4)}")
        path.rename(gone)
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        return True


def _read(folder: Path) -> Iterator[tuple[Path, _Kept]]:
    """What is kept. One that another release wrote in another way is made anew."""
    for file in folder.glob(f"[!.]*/{_RECORD}"):
        try:
            yield file.parent, _Kept.model_validate_json(file.read_bytes())
        except ValidationError:
            _log.warning("warm snapshot %s is unfit: its record is unreadable", file.parent.name)


def _noted(file: Path) -> _InTheMaking | None:
    """What is known of a machine in the making. A power loss may have taken the note's bytes.

    Then the machine is gone too; and where one is not, it is ended as one that nobody owns.
    """
    try:
        return _InTheMaking.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        _log.warning("%s is unreadable; what it is about is removed", file)
        return None


def _note_of(machine: Machine) -> _InTheMaking:
    return _InTheMaking(
        machine_id=machine.id,
        folder=machine.folder,
        image=machine.base.parent,
        vcpus=machine.vcpus,
        memory_mb=machine.memory_mb,
        uid=machine.uid,
        namespace=machine.slot.namespace,
        tap=machine.slot.tap,
        index=machine.slot.index,
    )


def _machine_again(note: _InTheMaking) -> Machine:
    return Machine(
        id=note.machine_id,
        folder=note.folder,
        vcpus=note.vcpus,
        memory_mb=note.memory_mb,
        base=note.image / "base.erofs",
        kernel=note.image / "kernel",
        initrd=note.image / "initrd",
        overlay=note.folder / _OVERLAY,
        uid=note.uid,
        slot=Slot(note.namespace, note.tap, note.index),
        boot_token="",
    )
