"""The inside of a fake sandbox: commands as real local processes, files in a folder.

Paths of the sandbox lie below the folder: ``/workspace/a`` is ``<folder>/workspace/a``. Nothing is
isolated: this serves tests of what stands around a sandbox.
"""

from __future__ import annotations

import asyncio
import base64
import builtins
import contextlib
import io
import json
import os
import shutil
import signal
import stat as bits
import tarfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from runtools.errors import (
    DiskFull,
    FileAlreadyExists,
    FileError,
    FileForbidden,
    FileIsDirectory,
    FileMissing,
    FileNotDirectory,
    HistoryChanged,
    InvalidPath,
)
from runtools.guest.edits import Edit
from runtools.guest.paths import Root
from runtools.guest.problems import Problem
from runtools.guest.watches import Watches
from runtools.platform.host.guest import translate, wire
from runtools.sdk.shapes.inside import (
    MAX_OUTPUT_BYTES,
    ExecRequest,
    ExecResult,
    FileChange,
    FileEntry,
    FileKind,
    Listing,
    Stats,
)
from runtools.sdk.shapes.processes import Process, ProcessRequest
from runtools.testing.fake_processes import FakeProcess, FakeProcesses, unfit

CHUNK = 65_536
MAX_ENTRIES = 10_000


class Inside:
    """One fake sandbox's processes and files."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.env = dict(env)
        self.processes = FakeProcesses()
        self.commands: dict[str, asyncio.subprocess.Process] = {}
        self._begun = time.monotonic()
        self.life = 1  # another one after a rollback
        self._watches = Watches(Root(str(folder)))
        (folder / "workspace").mkdir(parents=True, exist_ok=True)

    @property
    def history(self) -> str:
        """To which course of events the output of its processes belongs."""
        return str(self.life)

    def told(self, process: Process) -> Process:
        """A process as the host tells of it."""
        return process.model_copy(update={"history": self.history})

    def check_history(self, history: str | None) -> None:
        """Refuse an offset of another."""
        if history and history != self.history:
            raise HistoryChanged(
                "it went back to a snapshot since", details={"history": self.history}
            )

    # --- commands ---

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run it to its end, or to its timeout: then it and its session are killed."""
        command = request.command
        argv = ["bash", "-c", command] if isinstance(command, str) else command
        begun = time.monotonic()
        cwd = self._at(request.cwd)
        if not cwd.is_dir():
            raise FileMissing(f"no folder {request.cwd}", details={"path": request.cwd})
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=cwd,
                env={"PATH": os.defpath + ":/usr/local/bin", **self.env, **request.env},
                start_new_session=True,
            )
        except OSError as error:
            raise unfit(argv[0], error) from error
        timed_out = False
        self.commands[request.process_id or ""] = process
        talk = asyncio.create_task(process.communicate(_stdin(request)))
        try:
            await asyncio.wait({talk}, timeout=request.timeout_ms / 1000)
            timed_out = not talk.done()
        finally:
            self.commands.pop(request.process_id or "", None)
            if not talk.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        out, err = await talk
        assert process.returncode is not None
        code = process.returncode
        return _result(request, begun, out, err, code, timed_out=timed_out)

    def signal(self, process_id: str, signal: int) -> bool:
        """Signal a running command and its session; False: none runs under the id."""
        process = self.commands.get(process_id)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal)
        return process is not None

    async def start_process(self, request: ProcessRequest) -> FakeProcess:
        """Start it and let it run."""
        cwd = self._at(request.cwd)
        if not cwd.is_dir():
            raise FileMissing(f"no folder {request.cwd}", details={"path": request.cwd})
        env = {"PATH": os.defpath + ":/usr/local/bin", "TERM": "xterm-256color"}
        return await self.processes.start(request, cwd, {**env, **self.env, **request.env})

    async def stats(self) -> Stats:
        """Made-up but steady figures, with the real uptime."""
        return Stats(
            cpu_percent=1.0,
            memory_used_bytes=64 << 20,
            memory_total_bytes=1024 << 20,
            disk_used_bytes=16 << 20,
            disk_total_bytes=2048 << 20,
            uptime_seconds=time.monotonic() - self._begun,
            processes=1,
            listening_ports=[],
            measured_at=datetime.now(UTC),
        )

    # --- files ---

    def stat(self, path: str) -> FileEntry:
        """One entry; a link is not followed."""
        with _errors(path):
            return self._entry(self._at(path))

    def list(self, path: str, depth: int) -> Listing:
        """What lies below, sorted."""
        top = self._at(path)
        with _errors(path):
            if not top.is_dir():
                next(top.iterdir())
            found = sorted(
                entry for entry in top.rglob("*") if len(entry.relative_to(top).parts) <= depth
            )
        shown = [self._entry(entry) for entry in found[:MAX_ENTRIES]]
        return Listing(entries=shown, truncated=len(found) > MAX_ENTRIES)

    def mkdir(self, path: str, mode: int) -> FileEntry:
        """A folder and its parents."""
        with _errors(path):
            self._at(path).mkdir(mode, parents=True, exist_ok=True)
        return self.stat(path)

    def move(self, source: str, target: str, overwrite: bool) -> FileEntry:
        """Rename."""
        with _errors(source):
            self._free(target, overwrite)
            self._at(source).replace(self._at(target))
        return self.stat(target)

    def copy(self, source: str, target: str, overwrite: bool) -> FileEntry:
        """Copy a file or a whole folder."""
        with _errors(source):
            self._free(target, overwrite)
            if self._at(source).is_dir():
                shutil.copytree(self._at(source), self._at(target), symlinks=True)
            else:
                shutil.copy2(self._at(source), self._at(target), follow_symlinks=False)
        return self.stat(target)

    def edit(self, path: str, old: str, new: str, occurrences: int) -> FileEntry:
        """Replace an exact text, as the guest does: by its own code."""
        root = Root(str(self.folder))
        try:
            wish = {"path": path, "old": old, "new": new, "occurrences": occurrences}
            Edit(root, wish).run()
        except Problem as problem:
            raise wire.problem(json.loads(problem.to_json())) from problem
        return self.stat(path)

    def chmod(self, path: str, mode: int) -> FileEntry:
        """Change permission bits."""
        with _errors(path):
            self._at(path).chmod(mode)
        return self.stat(path)

    def remove(self, path: str, recursive: bool) -> None:
        """Remove a file, an empty folder, or with ``recursive`` all of it."""
        at = self._at(path)
        with _errors(path):
            if not at.is_dir() or at.is_symlink():
                at.unlink()
            elif recursive:
                shutil.rmtree(at)
            elif any(at.iterdir()):
                raise FileIsDirectory(f"{path} is a folder that is not empty")
            else:
                at.rmdir()

    async def read(self, path: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of a range."""
        with self._at(path).open("rb") as file:
            file.seek(start)
            left = end - start
            while left and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk
                await asyncio.sleep(0)

    async def write(
        self,
        path: str,
        chunks: AsyncIterator[bytes],
        mode: int | None,
        how: Literal["replace", "append"],
    ) -> FileEntry:
        """Replace as a whole, or append."""
        at = self._at(path)
        target = at if how == "append" else at.with_name(f".{at.name}.new")
        with _errors(path):
            if at.is_dir():
                raise FileIsDirectory(f"{path} is a folder")
            at.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("ab" if how == "append" else "wb")
        try:
            with file:
                async for chunk in chunks:
                    file.write(chunk)
            if mode is not None:
                target.chmod(mode)
            target.replace(at)
        finally:
            if how == "replace":
                target.unlink(missing_ok=True)
        return self.stat(path)

    async def watch(
        self, path: str, recursive: bool, after: int | None
    ) -> builtins.list[FileChange]:
        """What changed below a folder after a number; the guest agent's own watches, in this process."""
        self._at(path)
        poll = self._watches.poll
        try:
            said = await asyncio.to_thread(
                poll, f"life {self.life}", path, recursive, after, 0.0, lambda: False
            )
        except Problem as problem:
            raise wire.problem({"error": json.loads(problem.to_json())["error"]}) from None
        return translate.changes(wire.Changes.model_validate(said), path, after)

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """A tar of a file or folder."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(self._at(path), arcname=self._at(path).name)
        data = buffer.getvalue()
        for at in range(0, len(data), CHUNK):
            yield data[at : at + CHUNK]

    async def upload(self, path: str, chunks: AsyncIterator[bytes]) -> Listing:
        """Unpack a tar."""
        buffer = io.BytesIO()
        async for chunk in chunks:
            buffer.write(chunk)
        buffer.seek(0)
        self._at(path).mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(fileobj=buffer) as tar:
                # As an attribute: not every Python 3.11 knows the argument.
                tar.extraction_filter = staticmethod(lambda member, _: member)
                tar.extractall(self._at(path))
        except tarfile.TarError as error:
            raise FileError(f"not a tar stream: {error}") from error
        return self.list(path, 64)

    def _at(self, path: str) -> Path:
        if not path.startswith("/") or "\0" in path or ".." in path.split("/") or len(path) > 4096:
            raise InvalidPath(f"{path[:80]!r} is no path", hint="absolute, without '..' or NUL")
        return self.folder / path.lstrip("/")

    def _free(self, target: str, overwrite: bool) -> None:
        if self._at(target).exists() and not overwrite:
            raise FileAlreadyExists(f"{target} exists", hint="set overwrite to replace it")

    def _entry(self, at: Path) -> FileEntry:
        found = at.lstat()
        return FileEntry(
            path=f"/{at.relative_to(self.folder)}",
            kind=_kind(found.st_mode),
            size=found.st_size,
            mode=bits.S_IMODE(found.st_mode),
            owner=str(found.st_uid),
            group=str(found.st_gid),
            modified_at=datetime.fromtimestamp(found.st_mtime, UTC),
            target=str(at.readlink()) if bits.S_ISLNK(found.st_mode) else None,
        )


def _kind(mode: int) -> FileKind:
    if bits.S_ISREG(mode):
        return "file"
    if bits.S_ISDIR(mode):
        return "directory"
    return "symlink" if bits.S_ISLNK(mode) else "other"


def _stdin(request: ExecRequest) -> bytes:
    text = request.stdin or ""
    return base64.b64decode(text) if request.stdin_encoding == "base64" else text.encode()


def _result(
    request: ExecRequest,
    begun: float,
    out: bytes,
    err: bytes,
    code: int,
    *,
    timed_out: bool = False,
) -> ExecResult:
    limit = min(request.max_output_bytes, MAX_OUTPUT_BYTES)
    truncated = len(out) > limit or len(err) > limit
    out, err = out[:limit], err[:limit]
    encoding: Literal["utf-8", "base64"] = "utf-8"
    try:
        stdout, stderr = out.decode(), err.decode()
    except UnicodeDecodeError:
        encoding = "base64"
        stdout, stderr = base64.b64encode(out).decode(), base64.b64encode(err).decode()
    return ExecResult(
        process_id=request.process_id or "",
        stdout=stdout,
        stderr=stderr,
        encoding=encoding,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        duration_ms=(time.monotonic() - begun) * 1000,
        timed_out=timed_out,
        truncated=truncated,
    )


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """Errors of the file system as ours."""
    kinds = {
        FileNotFoundError: FileMissing,
        FileExistsError: FileAlreadyExists,
        PermissionError: FileForbidden,
        IsADirectoryError: FileIsDirectory,
        NotADirectoryError: FileNotDirectory,
    }
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno == 28 else kinds.get(type(error), FileError)
        raise kind(f"{path}: {error.strerror}", details={"path": path}) from error
