# Generated from sdk/files.py by scripts/generate_sync.py: edit that, then run it.
"""Files inside a sandbox. Every act wakes a paused sandbox."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import BinaryIO

from runtools.errors import InvalidPath, RunToolsError, TooLarge
from runtools.sdk import local, wire
from runtools.sdk.concurrency import sync_consume
from runtools.sdk.local import MAX_DOWNLOAD_BYTES, Progress, Transfer, Writable
from runtools.sdk.pack import Folder
from runtools.sdk.shapes.inside import FileChange, FileEntry, Listing
from runtools.sdk.sse import Event
from runtools.sdk.sync.breaks import beside, changed, explained
from runtools.sdk.sync.transport import Download, Transport
from runtools.sdk.unpack import unpack

MAX_READ_BYTES = 256 * 1024 * 1024
_MAX_LINKS = 16


class Files:
    """The files of one sandbox: ``sb.files``. Paths inside are absolute."""

    def __init__(self, transport: Transport, sandbox: str) -> None:
        self._transport = transport
        self._path = f"{sandbox}/files"

    def read(self, path: str, *, start: int = 0, end: int | None = None) -> bytes:
        """A file's bytes from ``start`` to ``end`` (exclusive; None: its end).

        Raises:
            FileMissing, FileIsDirectory, FileForbidden: what the file system says.
            TooLarge: more than 256 MiB; `download` holds nothing in memory.
            SandboxPaused, SandboxStopped, HistoryChanged, Conflict, Unavailable: as for `download`.
        """
        query = [("path", path), ("start", start or None), ("end", end)]
        parts: list[bytes] = []
        size = 0
        with self._body(path, query) as body:
            for chunk in body.chunks():
                size += len(chunk)
                if size > MAX_READ_BYTES or (body.size or 0) > MAX_READ_BYTES:
                    raise TooLarge(
                        f"{path} has more than {MAX_READ_BYTES} bytes to read at once",
                        hint="use files.download, or read ranges",
                    )
                parts.append(chunk)
        return b"".join(parts)

    def read_text(self, path: str, *, encoding: str = "utf-8") -> str:
        """A file's text; raises UnicodeDecodeError where it is none."""
        return (self.read(path)).decode(encoding)

    def write(
        self,
        path: str,
        data: Writable,
        *,
        mode: int | None = None,
        on_progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> FileEntry:
        """Replace a file in one step, folders above it made: readers see the old or the new one.

        Args:
            path: where.
            data: text (as UTF-8), bytes, a binary file from where it stands, or chunks of bytes.
            mode: permission bits such as 0o755; default: those of the old file, else 0o644.
            on_progress: called with the number of bytes sent so far.
            idempotency_key: a repeat with the same key is answered, not done again.

        Raises:
            FileIsDirectory, FileForbidden, DiskFull: what the file system says.
        """
        return self._put(
            path,
            local.source_of(data),
            mode,
            append=False,
            on_progress=on_progress,
            key=idempotency_key,
        )

    def append(self, path: str, data: Writable, *, mode: int | None = None) -> FileEntry:
        """Add to the end of a file, made where it is missing."""
        return self._put(path, local.source_of(data), mode, append=True, on_progress=None)

    def _put(
        self,
        path: str,
        source: local.Source,
        mode: int | None,
        *,
        append: bool,
        on_progress: Progress | None,
        key: str | None = None,
    ) -> FileEntry:
        query = [
            ("path", path),
            ("mode", None if mode is None else f"{mode:o}"),
            ("append", append or None),
        ]
        answer = self._transport.put(
            self._path, source, query=query, on_progress=on_progress, key=key
        )
        return wire.shape(FileEntry, answer.data)

    def stat(self, path: str) -> FileEntry:
        """What is at a path; a link is shown as itself."""
        answer = self._transport.call(
            "GET", f"{self._path}/stat", query=[("path", path)], seconds=wire.WAKE_SECONDS
        )
        return wire.shape(FileEntry, answer.data)

    def mkdir(self, path: str, mode: int = 0o755) -> FileEntry:
        """Make a folder and those above it."""
        return self._change("mkdir", {"path": path, "mode": mode})

    def move(self, source: str, target: str, *, overwrite: bool = False) -> FileEntry:
        """Rename, or move to another folder; ``target`` is the new path itself."""
        return self._change("move", {"source": source, "target": target, "overwrite": overwrite})

    def copy(self, source: str, target: str, *, overwrite: bool = False) -> FileEntry:
        """Copy a file or a whole folder; ``target`` is the new path itself."""
        return self._change("copy", {"source": source, "target": target, "overwrite": overwrite})

    def edit(
        self,
        path: str,
        old: str,
        new: str,
        *,
        occurrences: int = 1,
        idempotency_key: str | None = None,
    ) -> FileEntry:
        """Replace an exact text in a file, as one act: what others change meanwhile is not lost.

        Args:
            path: of a file of at most 8 MiB.
            old: the text, white space included.
            new: what stands there afterwards.
            occurrences: how often it must stand there; 0: any number of times, but not none.
            idempotency_key: a repeat under it is answered, not done again.

        Raises:
            EditUnfit: it does not; ``details`` say how often (``count``) and where (``lines``).
        """
        body = {"path": path, "old": old, "new": new, "occurrences": occurrences}
        return self._change("edit", body, idempotency_key)

    def chmod(self, path: str, mode: int) -> FileEntry:
        """Change permission bits, e.g. ``0o755``."""
        return self._change("chmod", {"path": path, "mode": mode})

    def remove(
        self, path: str, *, recursive: bool = False, idempotency_key: str | None = None
    ) -> None:
        """Delete a file or an empty folder; ``recursive``: a folder with all in it."""
        query = [("path", path), ("recursive", recursive or None)]
        self._transport.call(
            "DELETE", self._path, query=query, key=idempotency_key, seconds=wire.ACT_SECONDS
        )

    def _change(self, act: str, body: dict[str, object], key: str | None = None) -> FileEntry:
        answer = self._transport.call(
            "POST", f"{self._path}/{act}", body=body, key=key, seconds=wire.ACT_SECONDS
        )
        return wire.shape(FileEntry, answer.data)

    @contextmanager
    def watch(
        self, path: str, *, recursive: bool = True
    ) -> Iterator[Generator[FileChange, None, None]]:
        """The changes below a folder as they happen, for ever; none is missed from the entry on.

        ``with sandbox.files.watch("/workspace") as changes:`` gives what to loop over. A connection
        that breaks is taken up again after the last change seen. Where changes were lost all the same,
        one of kind ``overflow`` says so: look at the files again. Entering wakes a paused sandbox; from
        then on the watch lives through pauses and keeps nothing awake.

        Args:
            path: the folder.
            recursive: False: only what lies directly in it.

        Raises:
            FileMissing, FileNotDirectory: there is no such folder; later: not any more.
            TooLarge: there are more folders below it than can be watched.
            SandboxStopped: the sandbox has ended.
        """
        query = [("path", path), ("recursive", recursive)]
        with closing(self._transport.follow(f"{self._path}/watch", query=query)) as events:
            next(events)  # it is armed
            yield _changes(events)

    def upload(
        self,
        source: str | PathLike[str] | BinaryIO,
        target: str,
        *,
        on_progress: Progress | None = None,
    ) -> Transfer:
        """Send a file or a whole folder of this machine, as a stream.

        Links that lead out of the folder, and what is neither file, folder nor link, cannot come
        with it and are listed in ``skipped``.

        Args:
            source: a path, or a file open for reading bytes.
            target: the path it will have, not the folder to put it in; but one that ends in ``/``
                is a folder to put it in. Into a folder that is there, a folder is merged.
            on_progress: called, maybe from another thread, with the number of bytes sent so far.

        Raises:
            InvalidRequest: the source cannot be read, or changed while it was.
            FileError: what the file system inside says.
        """
        if not isinstance(source, (str, PathLike)):
            entry = self.write(target, source, on_progress=on_progress)
            return Transfer(1, entry.size)
        path = Path(source)
        if target.endswith("/"):
            target += path.resolve().name
        if path.is_dir():
            folder = Folder(path)
            self._transport.put(
                f"{self._path}/archive",
                folder.source(),
                query=[("path", target)],
                on_progress=on_progress,
            )
            return folder.done()
        file = local.file_source(path)
        mode = path.stat().st_mode & 0o777
        sent = self._put(target, file, mode, append=False, on_progress=on_progress)
        return Transfer(1, sent.size)

    def download(
        self,
        source: str,
        target: str | PathLike[str] | BinaryIO,
        *,
        max_bytes: int = MAX_DOWNLOAD_BYTES,
        on_progress: Progress | None = None,
    ) -> Transfer:
        """Fetch a file or a whole folder to this machine, as a stream.

        What the sandbox sends is not trusted: nothing is written outside the target, no link of
        it is followed, and links that lead out of it are left out and listed in ``skipped``.

        Args:
            source: a path in the sandbox.
            target: the path it will have here; one that ends in ``/``, or for a file a folder that
                is there, is a folder to put it in. Or a file open for writing bytes.
            max_bytes: more is refused; default 64 GiB.
            on_progress: called, maybe from another thread, with the number of bytes so far.

        Raises:
            FileMissing, FileForbidden: what the file system inside says.
            TooLarge: more than ``max_bytes``.
            GuestMisbehaved: what came is no folder.
            InvalidRequest: the target cannot be written.
            SandboxPaused, SandboxStopped, HistoryChanged, Conflict: that befell the sandbox, or the file,
                in the middle of it; nothing is left here.
            Unavailable: it broke off in the middle; the message says more where more is known.
        """
        entry = self._followed(source)
        name = source.rstrip("/").rpartition("/")[2]
        to = _target(target, name, into_folder=entry.kind != "directory")
        if entry.kind == "directory" and isinstance(to, Path):
            query = [("path", entry.path)]
            with self._body(None, query) as body:
                return sync_consume(
                    body.chunks(),
                    lambda chunks: unpack(chunks, to, max_bytes=max_bytes, on_progress=on_progress),
                )
        with self._body(entry.path, [("path", entry.path)]) as body:
            return sync_consume(
                body.chunks(),
                lambda chunks: local.save(
                    chunks, to, mode=entry.mode, max_bytes=max_bytes, on_progress=on_progress
                ),
            )

    @contextmanager
    def _body(self, file: str | None, query: wire.Query) -> Iterator[Download]:
        """A file, or (None) a folder, as it comes; where it breaks off, why, as far as is known."""
        path = f"{self._path}/archive" if file is None else self._path
        with self._transport.stream(path, query=query) as body:
            try:
                yield body
            except wire.BrokenOff as broken:
                raise self._why(broken, body, file) from broken

    def _why(self, broken: wire.BrokenOff, body: Download, file: str | None) -> RunToolsError:
        sandbox = self._path.rpartition("/")[0]
        told = explained(self._transport, sandbox, broken, body)
        if told is not broken or file is None:
            return told
        try:
            entry = self.stat(file)
        except RunToolsError as refusal:
            return beside(broken, refusal)
        return changed(file, body.header("X-File-Size"), entry) or broken

    def _followed(self, path: str) -> FileEntry:
        """What is at a path; where that is a link, what it leads to."""
        for _ in range(_MAX_LINKS):
            entry = self.stat(path)
            if entry.kind != "symlink" or entry.target is None:
                return entry
            path = normpath(join(dirname(entry.path), entry.target))
        raise InvalidPath(f"{path} is a link to a link to a link without end")

    def list(self, path: str = "/workspace", *, depth: int = 1) -> Listing:
        """What lies below a folder, ``depth`` levels deep, sorted by path.

        ``truncated`` says when there was more than one answer holds.
        """
        query = [("path", path), ("depth", depth)]
        answer = self._transport.call(
            "GET", f"{self._path}/list", query=query, seconds=wire.WAKE_SECONDS
        )
        return wire.shape(Listing, answer.data)


def _changes(events: Generator[Event, None]) -> Generator[FileChange, None, None]:
    for event in events:
        change = wire.parsed(FileChange, event.data)
        if change.kind != "armed":
            yield change


def _target(
    target: str | PathLike[str] | BinaryIO, name: str, *, into_folder: bool
) -> Path | BinaryIO:
    if not isinstance(target, (str, PathLike)):
        return target
    path = Path(target)
    inside = str(target).endswith("/") or (into_folder and path.is_dir())
    return path / name if inside and name else path
