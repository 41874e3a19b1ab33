"""Templates of one host: builds, one at a time (`turns.py` says which), and the versions that they made.

    build ──▶ building ──▶ ready      immutable; removed by drop
                  └──────▶ failed     with its log and the reason, without files

A build ends by itself, by its limit of time, by a drop, by a disk that is almost full, or with the host.
A version's record (`record.py`) is the commit point. What a crash leaves of a build is a record that
says "building" with nobody at work on it: at the next start it has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol

from runtools.errors import BuildFailed, Conflict, InvalidRequest, NotFound, RunToolsError
from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.platform.core.ports.network import Network
from runtools.platform.core.recipes import RECIPES, usual_memory_mb
from runtools.platform.host.disk import room
from runtools.platform.host.disk.files import sync
from runtools.platform.host.disk.trees import used_bytes
from runtools.platform.host.templates.build import Workshop, build, clear
from runtools.platform.host.templates.buildlog import BuildLog, duration, read_log
from runtools.platform.host.templates.images import BASE, INITRD, KERNEL, LOG, RECORD, Image
from runtools.platform.host.templates.recipes import check_packages, recipe_of
from runtools.platform.host.templates.record import Record, read_records
from runtools.platform.host.templates.turns import Turn, Turns
from runtools.platform.kit.clock import Backoff, Clock
from runtools.platform.kit.crash import crash_point
from runtools.platform.kit.unbroken import to_its_end
from runtools.sdk.shapes.sandboxes import DEFAULT_VCPUS
from runtools.sdk.shapes.templates import BuildLine

_log = logging.getLogger(__name__)

# A VMM runs as a user of its own: it passes through the folders and reads the images.
_PASSABLE = 0o711
_LONGEST_SECONDS = 5.0  # between two tries to write down how a build ended
_AT_ONCE = 64  # lines of a log that are told without giving way
_SAID = 6  # about as many lines as a first boot says
_VERSION_ID = re.compile(r"[a-z]{3}_[a-z0-9]{1,40}")  # it names a folder


class Warming(Protocol):
    """What a build asks of `Warm`."""

    network: Network

    async def make(
        self, image: Image, vcpus: int, memory_mb: int, say: Callable[[str], None]
    ) -> Path:
        """Make a warm snapshot."""
        ...

    async def forget(self, version_id: str) -> None:
        """Remove those of a version."""
        ...


class Templates:
    """The template versions below ``home/templates``.

    Args:
        home: the host part's home; ``cache`` and ``work`` lie there too.
        clock: for the log.
        mirror, kasmvnc: the settings of these names.
        keep_free: bytes of the disk that builds leave to the sandboxes.
        limit_seconds: how long a build may take from when its turn comes; None: as long as it does.
        warm: makes the first warm snapshot of a version, and with it shows that it boots. Its
            network is also that of scripts.
    """

    def __init__(
        self,
        home: Path,
        clock: Clock,
        *,
        mirror: str,
        warm: Warming,
        kasmvnc: str = "",
        keep_free: int = 0,
        limit_seconds: float | None = None,
    ) -> None:
        self._folder = home / "templates"
        cache = home / "cache" / "packages"
        self._shop = Workshop(home / "work", cache, mirror, warm.network, kasmvnc, keep_free)
        self._clock = clock
        self._warm = warm
        self._limit_seconds = limit_seconds
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(_PASSABLE)
        self._records = {r.order.version_id: r for r in read_records(self._folder)}
        self._logs: dict[str, BuildLog] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = Turns()
        self._building: str | None = None
        self._makes_image = False
        self._has_shop = False
        self._given_way: set[str] = set()
        self._dropped: set[str] = (
            set()
        )  # an order may still be on its way when its version is dropped
        self._stopping = False

    async def reclaim(self) -> int:
        """At the start: end the builds that a crash cut off, and remove what they left."""
        await asyncio.to_thread(shutil.rmtree, self._shop.work, ignore_errors=True)
        cut = [r for r in self._records.values() if r.state == "building"]
        for record in cut:
            self._write_down(
                self._settled(record, BuildFailed("the platform ended during the build"))
            )
            await self._warm.forget(record.order.version_id)
        for folder in list(self._folder.iterdir()):
            # Half removed, or begun, but not even written down. What is written down unreadably stays.
            if folder.name.startswith(".") or not (folder / RECORD).exists():
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return len(cut)

    async def stop(self) -> None:
        """Cancel builds; they have failed."""
        self._stopping = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def build(self, order: BuildOrder) -> Built:
        """Begin a build, or queue it; a repeat of the same version says how it stands.

        Raises:
            InvalidRequest: an unknown recipe, what is no package name, or no id.
            BuildFailed: it was begun before, and what was written down of it cannot be read.
            Conflict: it was dropped before.
            Unavailable: the disk does not take it; nothing of it is left.
        """
        if order.version_id in self._dropped:
            raise Conflict(f"{order.slug}@{order.version} was deleted before its build began")
        if order.version_id not in self._records:
            recipe = recipe_of(order.recipe)
            check_packages(order.apt)
            if recipe.vnc == "kasmvnc" and not self._shop.kasmvnc:
                raise InvalidRequest(
                    f"{recipe.slug} needs a package of KasmVNC, and none is named",
                    hint="the setting kasmvnc takes its address or file; desktop-debian needs none",
                )
            if _VERSION_ID.fullmatch(order.version_id) is None:
                raise InvalidRequest(f"{order.version_id[:80]!r} is no id")
            record = Record(order=order, created_at=self._clock.now())
            log = self._begun(record)
            log.step("queued", 0.0, 0.0)
            turn, before = self._turns.ask(order.org_id)
            if before:
                log.line(f"one is built at a time, and orgs take turns: {before} before it")
            if not RECIPES[recipe.slug]:
                log.line(f"nobody has seen a build of {recipe.slug} pass yet: it is untested")
            self._records[order.version_id] = record
            self._logs[order.version_id] = log
            task = asyncio.create_task(self._run(record, log, turn))
            task.add_done_callback(partial(self._over, record, log, turn))
            self._tasks[order.version_id] = task
        return await self.built(order.version_id)

    async def built(self, version_id: str) -> Built:
        """How a version stands.

        Raises:
            NotFound: nobody ordered it here.
        """
        record = self._record(version_id)
        log = self._logs.get(version_id)
        return record.built(log.progress, log.step_name) if log else record.built()

    async def build_log(self, version_id: str, after: int) -> AsyncIterator[BuildLine]:
        """Every line after a position; ends when the build has ended and all were given.

        Raises:
            NotFound: nobody ordered it here.
        """
        self._record(version_id)
        log = self._logs.get(version_id)
        lines = log.follow(after) if log is not None else self._kept(version_id, after)
        async for line in lines:
            yield line
            if line.n % _AT_ONCE == 0:  # a log may have 200,000, all there already
                await asyncio.sleep(0)

    async def _kept(self, version_id: str, after: int) -> AsyncIterator[BuildLine]:
        for line in (await asyncio.to_thread(read_log, self._at(version_id) / LOG))[
            max(after, 0) :
        ]:
            yield line

    async def drop(self, version_id: str) -> None:
        """Remove a version, ending its build; one that is not there is no error.

        Whoever calls this knows that nothing uses it. Who follows the build is told its end.
        """
        self._dropped.add(version_id)
        if task := self._tasks.get(version_id):
            task.cancel()
            await asyncio.wait([task])
        await self._warm.forget(version_id)
        if _VERSION_ID.fullmatch(version_id) is None:
            return
        # Out of sight first: what is left of a removal that was cut off is reclaimed at the next start.
        folder = self._at(version_id)
        gone = folder.with_name(f".gone-{version_id}")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(gone)
        self._records.pop(version_id, None)
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    def image(self, version_id: str) -> Image:
        """What machines of a version stand on.

        Raises:
            NotFound: nobody ordered it here.
            BuildFailed: it is not ready.
        """
        record = self._record(version_id)
        if record.state != "ready":
            raise BuildFailed(
                f"{record.order.slug} version {record.order.version} is not ready: "
                f"{record.error or 'it is still being built'}",
                hint=f"runtools template logs {record.order.slug}",
            )
        return record.image(self._at(version_id))

    def all(self) -> list[Image]:
        """Every version that is ready."""
        return [
            r.image(self._at(r.order.version_id))
            for r in self._records.values()
            if r.state == "ready"
        ]

    def give_way(self) -> bool:
        """End the build under way: the disk is almost full. Whether most of what it took is given back.

        One that has made its image, or could not, gives that back by itself, and is let be from then on.
        """
        version_id = self._building
        if version_id is None or not self._has_shop:
            return False
        if self._makes_image and version_id not in self._given_way:
            self._given_way.add(version_id)
            self._tasks[version_id].cancel()
        return True

    async def _run(self, record: Record, log: BuildLog, turn: Turn) -> None:
        await turn.come
        self._building = record.order.version_id
        limit = asyncio.timeout(self._limit_seconds)
        try:
            async with limit:
                await self._make(record, log)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._took_too_long(log) from None
        finally:
            self._building = None

    def _took_too_long(self, log: BuildLog) -> BuildFailed:
        return BuildFailed(
            f"{log.step_name}: a build may take {(self._limit_seconds or 0) / 60:g} minutes, and this one "
            "had not ended by then",
            hint="the setting build_minutes allows more",
        )

    def _begun(self, record: Record) -> BuildLog:
        """Write down that a build begins; where it says how it goes."""
        folder = self._at(record.order.version_id)
        named = f"{record.order.slug} version {record.order.version}"
        try:
            folder.mkdir()
        except FileExistsError:
            raise BuildFailed(
                f"what this host has written down of {record.order.version_id} cannot be read",
                hint="delete this version, and build another",
            ) from None
        except OSError as exc:
            raise room.refused(named, exc) from exc
        try:
            folder.chmod(_PASSABLE)
            record.keep(folder)
            return BuildLog(folder / LOG, self._clock)
        except OSError as exc:
            shutil.rmtree(folder, ignore_errors=True)
            raise room.refused(named, exc) from exc

    def _over(self, record: Record, log: BuildLog, turn: Turn, task: asyncio.Task[None]) -> None:
        """A build has ended, however it did; also one that was cancelled before it began.

        Those who follow it are told at once, whatever the disk takes.
        """
        self._turns.end(turn)
        version_id = record.order.version_id
        failure = None if task.cancelled() else task.exception()
        error: RunToolsError | None = None
        if task.cancelled() and version_id in self._dropped:
            error = BuildFailed("it was deleted while it was being built")
        elif task.cancelled() and version_id in self._given_way:
            error = BuildFailed(
                f"{log.step_name}: the host's disk was almost full",
                hint="make room (runtools df, runtools prune), then build it again",
            )
        elif task.cancelled():
            error = BuildFailed("the platform was stopped during the build")
        elif isinstance(failure, RunToolsError):
            error = failure
        elif failure is not None:  # a defect: it must not look as if the build went on
            _log.error("the build of %s broke", version_id, exc_info=failure)
            error = BuildFailed(f"{log.step_name}: {type(failure).__name__}: {failure}")
        del self._tasks[version_id]
        self._given_way.discard(version_id)
        ended = self._settled(record, error)
        self._say_end(ended, log)
        self._write_down(ended, log)

    async def _make(self, record: Record, log: BuildLog) -> None:
        version_id = record.order.version_id
        folder = self._at(version_id)
        self._makes_image = self._has_shop = True
        try:
            await build(record.order, self._shop, folder, log)
        finally:
            self._makes_image = False
            await to_its_end(clear(self._shop, version_id))
            self._has_shop = False
        crash_point("build.image")
        log.step("first boot", 0.65, 1.0)
        size = used_bytes(folder)
        image = record.model_copy(update={"size_bytes": size}).image(folder)
        said = count(1)

        def say(text: str) -> None:
            log.part(next(said) / _SAID)
            log.line(text)

        memory_mb = usual_memory_mb(record.order.recipe)
        try:
            await self._warm.make(image, DEFAULT_VCPUS, memory_mb, say)
            crash_point("build.booted")
            await sync([folder])
        except BaseException:  # nothing will be cloned from a version that has failed
            await to_its_end(self._warm.forget(version_id))
            raise

    def _settled(self, record: Record, error: RunToolsError | None) -> Record:
        """Know how a build ended; a failed one keeps no files."""
        folder = self._at(record.order.version_id)
        if error is not None:
            for name in (BASE, KERNEL, INITRD):
                (folder / name).unlink(missing_ok=True)
        ended = record.model_copy(
            update={
                "state": "ready" if error is None else "failed",
                "error": None if error is None else str(error),
                "size_bytes": used_bytes(folder) if error is None else 0,
                "finished_at": self._clock.now(),
            }
        )
        self._records[record.order.version_id] = ended
        return ended

    def _write_down(self, ended: Record, log: BuildLog | None = None) -> None:
        """Keep how a build ended; what the disk refuses now is written when it takes it."""
        version_id = ended.order.version_id
        try:
            self._keep(ended, log)
        except OSError as exc:
            _log.error("how the build of %s ended must wait to be written: %s", version_id, exc)
            if not self._stopping:
                self._tasks[version_id] = asyncio.create_task(self._write_later(ended, log))
                return
        self._logs.pop(version_id, None)

    async def _write_later(self, ended: Record, log: BuildLog | None) -> None:
        version_id, backoff = ended.order.version_id, Backoff(self._clock, most=_LONGEST_SECONDS)
        try:
            while True:
                await backoff.wait()
                try:
                    self._keep(ended, log)
                except OSError as exc:
                    _log.error("how the build of %s ended must still wait: %s", version_id, exc)
                else:
                    return
        finally:
            self._logs.pop(version_id, None)
            self._tasks.pop(version_id, None)

    def _keep(self, ended: Record, log: BuildLog | None) -> None:
        with contextlib.suppress(FileNotFoundError):  # it is being dropped
            ended.keep(self._at(ended.order.version_id))
        if log is not None:
            log.save()

    def _say_end(self, record: Record, log: BuildLog) -> None:
        assert record.finished_at is not None  # noqa: S101 - it was settled
        took = duration(record.created_at, record.finished_at)
        if record.error is None:
            log.step("ready", 1.0, 1.0)
            log.line(f"{record.size_bytes >> 20} MB, {took}", always=True)
        else:
            log.step("failed", 0.0, 0.0)
            log.line(f"{record.error} (after {took})", always=True)
        log.end()

    def _record(self, version_id: str) -> Record:
        try:
            return self._records[version_id]
        except KeyError:
            raise NotFound(f"this host knows no template version {version_id}") from None

    def _at(self, version_id: str) -> Path:
        return self._folder / version_id
