"""The local side of a transfer: what is read from it and written to it. Blocking throughout."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from runtools.errors import InvalidRequest, TooLarge

CHUNK_BYTES = 256 * 1024
MAX_DOWNLOAD_BYTES = 64 * 1024**3

Progress = Callable[[int], None]
Writable = str | bytes | bytearray | memoryview | BinaryIO | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Source:
    """Something to send.

    Attributes:
        open: begins to read it, anew at each call where ``again`` holds.
        size: how many bytes it has; None where nobody knows before the end.
        again: whether it can be read a second time.
    """

    open: Callable[[], Iterator[bytes]]
    size: int | None
    again: bool

    def read(self, on_progress: Progress | None = None) -> Iterator[bytes]:
        """Its bytes, of which there are ``size``.

        Raises:
            InvalidRequest: it changed its size while it was read.
        """
        done = 0
        for chunk in self.open():
            done += len(chunk)
            if self.size is not None and done > self.size:
                break
            yield chunk
            if on_progress is not None:
                on_progress(done)
        if self.size is not None and done != self.size:
            raise InvalidRequest("what is being sent changed its size meanwhile", hint="try again")


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that was left out of a transfer, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a transfer brought: how many files, folders and links, and how many bytes of content."""

    entries: int
    size_bytes: int
    skipped: list[Skipped] = field(default_factory=list)


def source_of(data: Writable) -> Source:
    """What the caller wants to send: text (as UTF-8), bytes, an open binary file, or chunks."""
    if isinstance(data, str):
        data = _utf8(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        whole = bytes(data)
        return Source(lambda: _slices(whole), len(whole), again=True)
    if hasattr(data, "read"):
        return _file_source(cast("BinaryIO", data))
    chunks = iter(data)
    return Source(lambda: chunks, None, again=False)


def file_source(path: Path) -> Source:
    """A file of this machine."""
    try:
        info = path.stat()
    except OSError as exc:
        raise unusable(path, exc) from None
    if not stat.S_ISREG(info.st_mode):
        return Source(lambda: _read_path(path), None, again=False)
    return Source(lambda: _read_path(path), info.st_size, again=True)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest(f"the text is not Unicode: {exc.reason}", hint="send bytes") from None


def _slices(whole: bytes) -> Iterator[bytes]:
    for start in range(0, len(whole), CHUNK_BYTES):
        yield whole[start : start + CHUNK_BYTES]


def _file_source(file: BinaryIO) -> Source:
    try:
        start = file.tell() if file.seekable() else None
    except OSError:
        start = None
    if start is None:
        return Source(lambda: _rest(file), None, again=False)
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)

    def again() -> Iterator[bytes]:
        file.seek(start)
        return _rest(file)

    return Source(again, size, again=True)


def _rest(file: BinaryIO) -> Iterator[bytes]:
    try:
        while chunk := file.read(CHUNK_BYTES):
            yield bytes(chunk)
    except TypeError:
        raise InvalidRequest("it is open for text", hint='open the file with mode "rb"') from None


def _read_path(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            yield from _rest(file)
    except OSError as exc:
        raise unusable(path, exc) from None


def save(
    chunks: Iterator[bytes],
    target: Path | BinaryIO,
    *,
    mode: int,
    max_bytes: int,
    on_progress: Progress | None,
) -> Transfer:
    """Write a stream to a file: to a path whole or not at all, to an open file as it comes."""
    counted = _counted(chunks, max_bytes, on_progress)
    if isinstance(target, Path):
        return _replace(counted, target, mode)
    return Transfer(1, sum(_written(target, chunk) for chunk in counted))


def _replace(chunks: Iterator[bytes], target: Path, mode: int) -> Transfer:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:32]}.", dir=target.parent)
    except OSError as exc:
        raise unusable(target, exc) from None
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            size = sum(_written(file, chunk) for chunk in chunks)
            os.fchmod(file.fileno(), kept_mode(mode))
        Path(name).replace(target)
    except OSError as exc:
        raise unusable(target, exc) from None
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()
    return Transfer(1, size)


def _written(file: BinaryIO, chunk: bytes) -> int:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]
    return len(chunk)


def _counted(
    chunks: Iterator[bytes], max_bytes: int, on_progress: Progress | None
) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        done += len(chunk)
        if done > max_bytes:
            raise TooLarge(
                f"the download exceeds {max_bytes} bytes", hint="raise max_bytes if it should"
            )
        yield chunk
        if on_progress is not None:
            on_progress(done)


def kept_mode(mode: int) -> int:
    """The permissions that a file from a sandbox gets here: never more than its owner may write."""
    return (mode & 0o755) | 0o600


def unusable(path: Path, exc: OSError) -> InvalidRequest:
    """The error of a local path that cannot be read or written."""
    return InvalidRequest(f"{path}: {exc.strerror or exc}", details={"path": str(path)})
