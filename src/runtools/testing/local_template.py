"""Templates for local machines: what `Templates` is to real ones.

A template version is a folder whose ``base.img`` is the guest agent, compiled, as a Python zip; there
is no kernel to boot and no distribution to install. A build streams a scripted log. It fails on demand:
a package named ``no-such-…`` is not found, and ``run`` is really run (with nothing writable but
``/tmp``), so that ``exit 3`` fails as it should.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import runtools.guest
from runtools.errors import BuildFailed, Conflict, NotFound
from runtools.platform.core.ports.host import BuildOrder, Built
from runtools.platform.host.templates.images import Image
from runtools.platform.kit import files, process
from runtools.platform.kit.clock import Clock, SystemClock
from runtools.sdk.shapes.templates import BuildLine, BuildState
from runtools.testing import local_agent, local_run

_SCRIPT = (
    ("base", "I: installing the base system"),
    ("base", "I: unpacking what every machine has"),
    ("packages", "I: nothing to fetch, the host's programs are used"),
    ("agent", "I: compiling the guest agent"),
)
_compiled: dict[Path, bytes] = {}


async def agent_zip() -> bytes:
    """The guest agent as the machines run it: compiled by the Python that will run it, zipped."""
    source = Path(runtools.guest.__file__).parent
    if source not in _compiled:
        with tempfile.TemporaryDirectory(prefix="runtools-agent-") as scratch:
            top = Path(scratch)
            shutil.copytree(
                source, top / "runtools/guest", ignore=shutil.ignore_patterns("__pycache__")
            )
            (top / "runtools/__init__.py").write_text("")
            shutil.copy(local_agent.__file__, top / "runtools")
            await process.run([local_run.PYTHON, "-m", "compileall", "-q", "-b", top])
            with zipfile.ZipFile(top / "agent.zip", "w") as archive:
                for file in sorted(top.rglob("*.pyc")):
                    archive.write(file, file.relative_to(top))
            _compiled[source] = (top / "agent.zip").read_bytes()
    return _compiled[source]


async def make_image(folder: Path, version_id: str, slug: str, version: int) -> Image:
    """A template version that needs no build."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("kernel", "initrd"):
        (folder / name).write_text("a local machine boots no kernel\n")
    files.write_atomic(folder / "base.img", await agent_zip(), mode=0o644, durable=False)
    return _image(folder, version_id, slug, version)


def _image(folder: Path, version_id: str, slug: str, version: int) -> Image:
    base = folder / "base.img"
    return Image(
        version_id=version_id,
        slug=slug,
        version=version,
        folder=folder,
        base=base,
        kernel=folder / "kernel",
        initrd=folder / "initrd",
        size_bytes=base.stat().st_size,
    )


class LocalTemplates:
    """Template versions below a folder, found again after a restart.

    Args:
        folder: holds one folder a version.
        pace: seconds between two lines of a build's log.
    """

    def __init__(self, folder: Path, *, pace: float = 0.0, clock: Clock | None = None) -> None:
        self._folder = folder
        self._pace = pace
        self._clock = clock or SystemClock()
        self._builds: dict[str, asyncio.Task[None]] = {}
        self._dropped: set[str] = set()
        self._changed = asyncio.Event()

    async def reclaim(self) -> int:
        """Nothing to do: a build that was cut off is seen as failed."""
        return 0

    async def stop(self) -> None:
        """Cancel builds; they have failed."""
        for task in list(self._builds.values()):
            task.cancel()
        await asyncio.gather(*self._builds.values(), return_exceptions=True)

    def give_way(self) -> bool:
        """Nothing to do: a build takes nothing of the disk."""
        return False

    async def build(self, order: BuildOrder) -> Built:
        """Begin a build; a repeat of the same version returns how it stands."""
        if order.version_id in self._dropped:
            raise Conflict(f"{order.slug}@{order.version} was deleted before its build began")
        at = self._folder / order.version_id
        if not (at / "template.json").exists():
            at.mkdir(parents=True)
            (at / "order.json").write_text(order.model_dump_json())
            _Saying(at, order.version_id, self._clock).stand("building", step="queued")
            self._builds[order.version_id] = asyncio.create_task(self._build(order))
        return self._built(order.version_id)

    async def built(self, version_id: str) -> Built:
        """How a build stands; one that a restart cut off has failed.

        Raises:
            NotFound: nobody ordered it.
        """
        return self._built(version_id)

    async def build_log(self, version_id: str, after: int) -> AsyncIterator[BuildLine]:
        """Every line after a position; ends when the build has ended and all were given."""
        self._built(version_id)
        while version_id not in self._dropped:
            changed, built = self._changed, self._built(version_id)
            log = self._folder / version_id / "build.log"
            for text in log.read_text().splitlines()[after:] if log.exists() else []:
                after += 1
                yield BuildLine.model_validate_json(text)
            if built.state != "building":
                return
            await changed.wait()

    async def drop(self, version_id: str) -> None:
        """Remove a version, ending its build; one that is not there is no error."""
        self._dropped.add(version_id)
        if task := self._builds.get(version_id):
            task.cancel()
            await asyncio.wait([task])
            self._builds.pop(version_id, None)
        self._ring()
        shutil.rmtree(self._folder / version_id, ignore_errors=True)

    def image(self, version_id: str) -> Image:
        """What machines of a version stand on.

        Raises:
            NotFound: nobody ordered it.
            BuildFailed: it is not ready.
        """
        built = self._built(version_id)
        if built.state != "ready":
            raise BuildFailed(f"template version {version_id} is {built.state}: {built.error}")
        at = self._folder / version_id
        order = BuildOrder.model_validate_json((at / "order.json").read_text())
        return _image(at, version_id, order.slug, order.version)

    def all(self) -> list[Image]:
        """Every version that is ready."""
        names = [file.parent.name for file in sorted(self._folder.glob("*/template.json"))]
        return [self.image(name) for name in names if self._built(name).state == "ready"]

    def _built(self, version_id: str) -> Built:
        try:
            text = (self._folder / version_id / "template.json").read_text()
        except FileNotFoundError as exc:
            raise NotFound(f"no template version {version_id}") from exc
        built = Built.model_validate_json(text)
        if built.state == "building" and version_id not in self._builds:
            return built.model_copy(update={"state": "failed", "error": "the build was cut off"})
        return built

    async def _build(self, order: BuildOrder) -> None:
        said = _Saying(self._folder / order.version_id, order.version_id, self._clock)
        try:
            for n, (step, text) in enumerate(_SCRIPT):
                await self._say(said, n / 10, step, text)
            for package in order.apt:
                await self._say(said, 0.5, "packages", f"Get: {package}")
                if package.startswith("no-such-"):
                    raise BuildFailed(f"E: Unable to locate package {package}")
            if order.run:
                await self._say(said, 0.8, "run", await _run(order.run))
            image = await make_image(said.folder, order.version_id, order.slug, order.version)
            await self._say(said, 1.0, "done", "I: done")
            said.stand("ready", size_bytes=image.size_bytes)
        except (BuildFailed, process.CommandFailed) as exc:
            await self._say(said, 1.0, "failed", str(exc))
            said.stand("failed", error=str(exc))
        finally:
            self._builds.pop(order.version_id, None)
            self._ring()

    async def _say(self, said: _Saying, progress: float, step: str, text: str) -> None:
        said.line(progress, step, text)
        self._ring()
        await asyncio.sleep(self._pace)

    def _ring(self) -> None:
        """Wake everybody who follows a log."""
        self._changed.set()
        self._changed = asyncio.Event()


class _Saying:
    """The log and the state of one build, on disk."""

    def __init__(self, folder: Path, version_id: str, clock: Clock) -> None:
        self.folder = folder
        self._clock = clock
        self._n = 0
        self._built = Built(
            version_id=version_id, state="building", progress=0, step="", size_bytes=0, error=None
        )

    def line(self, progress: float, step: str, text: str) -> None:
        """Append a line."""
        self._n += 1
        line = BuildLine(n=self._n, at=self._clock.now(), progress=progress, step=step, text=text)
        with (self.folder / "build.log").open("a") as log:
            log.write(line.model_dump_json() + "\n")
        self.stand("building", progress=progress, step=step)

    def stand(self, state: BuildState, **changes: Any) -> None:
        """Write down how the build stands."""
        self._built = self._built.model_copy(update={"state": state, **changes})
        text = self._built.model_dump_json()
        files.write_atomic(self.folder / "template.json", text.encode(), durable=False)


async def _run(script: str) -> str:
    root = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/"]
    root += ["--tmpfs", "/tmp", "--dev", "/dev"]
    said: list[str] = []
    # Not `process.run`, which ends bubblewrap alone: one that is young yet leaves its script behind.
    async with asyncio.timeout(600):
        await process.stream([*root, "--", "/bin/bash", "-e", "-c", script], said.append)
    return "\n".join(said)
