"""A folder from a sandbox, which may be hostile, unpacked from its tar stream.

It does not rest on tarfile's extraction filters (the Python of Debian 12 has none, and they
have been circumvented): tarfile only parses, within a budget of memory, and everything is made
relative to open directory handles without ever following a link. Links are made last, and only
those that stay inside. What is neither file, folder nor such a link is skipped and said.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from runtools.errors import GuestMisbehaved, TooLarge
from runtools.sdk.local import CHUNK_BYTES, Progress, Skipped, Transfer, kept_mode, unusable

MAX_ENTRIES = 1_000_000
_HEADER_BYTES = 1024 * 1024  # what the headers of one entry may take, long names and all
_BUDGET = _HEADER_BYTES + 2 * CHUNK_BYTES  # tarfile reads ahead by its buffer
_MAX_SKIPPED = 1000
_MAX_LINK_BYTES = 64 * 1024 * 1024
_MAX_NAME = 4096
_MAX_DEPTH = 256
_MAX_HOPS = 40

Parts = tuple[str, ...]


def unpack(
    chunks: Iterator[bytes], into: Path, *, max_bytes: int, on_progress: Progress | None
) -> Transfer:
    """Unpack a folder's tar stream: what lies in the archive's one top folder comes into ``into``.

    Raises:
        GuestMisbehaved: no tar, names that lead outside, or headers beyond all bounds.
        TooLarge: more bytes or entries than allowed.
        InvalidRequest: this machine's file system refuses.
    """
    reader = _Reader(chunks)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with (
            _Tree(into) as tree,
            closing(tarfile.open(fileobj=reader, mode="r|", bufsize=CHUNK_BYTES)) as tar,
        ):
            done = _Unpacking(tree, max_bytes, on_progress)
            while (member := _next(tar, reader)) is not None:
                done.entry(member, tar)
            return done.finish()
    except (tarfile.TarError, RecursionError, ValueError) as exc:
        raise GuestMisbehaved(f"the sandbox sent no sound tar stream: {exc}") from None
    except OSError as exc:
        raise unusable(into, exc) from None


def _next(tar: tarfile.TarFile, reader: _Reader) -> tarfile.TarInfo | None:
    reader.budget = _BUDGET
    member = tar.next()
    reader.budget = None
    vars(tar)["members"].clear()  # they would add up
    return member


class _Reader(io.RawIOBase):
    """The stream as a file; ``budget`` bounds what may be read while a header is parsed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.budget: int | None = _BUDGET  # opening the archive parses its first header

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        part, self._rest = self._rest[:size], self._rest[size:]
        if self.budget is not None:
            self.budget -= len(part)
            if self.budget < 0:
                raise GuestMisbehaved("an entry of the tar stream has headers without end")
        return part


class _Tree:
    """A folder whose entries are made relative to handles: no link is ever followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self._last: tuple[Parts, int] = ((), self._root)

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        os.close(self._root)

    def _forget(self) -> None:
        if self._last[1] != self._root:
            os.close(self._last[1])
        self._last = ((), self._root)

    def folder(self, parts: Parts) -> int:
        """An open handle of a folder, made where it is missing; good until the next call."""
        if self._last[0] == parts:
            return self._last[1]
        with ExitStack() as stack:
            here = self._root
            for part in parts:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
                here = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                stack.callback(os.close, here)
            kept = os.dup(here) if parts else self._root
        self._forget()
        self._last = (parts, kept)
        return kept

    def clear(self, parts: Parts) -> int:
        """Remove a file or link that stands where an entry shall; returns its folder's handle."""
        folder = self.folder(parts[:-1])
        with suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=folder)
        return folder

    def file(self, parts: Parts) -> IO[bytes]:
        folder = self.clear(parts)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.fdopen(os.open(parts[-1], flags, 0o600, dir_fd=folder), "wb", buffering=0)

    def symlink(self, parts: Parts, target: str) -> None:
        os.symlink(target, parts[-1], dir_fd=self.clear(parts))

    def hard_link(self, source: Parts, parts: Parts) -> None:
        origin = os.dup(self.folder(source[:-1]))
        try:
            folder = self.clear(parts)
            os.link(
                source[-1],
                parts[-1],
                src_dir_fd=origin,
                dst_dir_fd=folder,
                follow_symlinks=False,
            )
        finally:
            os.close(origin)

    def target(self, parts: Parts) -> str | None:
        """Where a link that is there already points; None for anything else."""
        try:
            return str(self.root.joinpath(*parts).readlink())
        except OSError:
            return None


@dataclass(slots=True)
class _Unpacking:
    """One unpacking under way."""

    tree: _Tree
    max_bytes: int
    on_progress: Progress | None
    entries: int = 0
    size: int = 0
    link_bytes: int = 0
    links: dict[Parts, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def entry(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise TooLarge(f"the folder has more than {MAX_ENTRIES} entries")
        parts = _below_top(member.name)
        if member.isdir():
            self.tree.folder(parts)
        elif not parts:
            raise GuestMisbehaved(f"the tar stream is not one of a folder: {member.name!r}")
        elif member.issym():
            self._defer(parts, member.linkname)
        elif member.islnk():
            self._hard_link(parts, member)
        elif member.isreg() and not member.issparse():
            self._file(parts, member, tar)
        else:
            self._skip(parts, "neither a file, a folder nor a link")

    def _file(self, parts: Parts, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        if self.size + member.size > self.max_bytes:
            raise TooLarge(
                f"the download exceeds {self.max_bytes} bytes", hint="raise max_bytes if it should"
            )
        content = tar.extractfile(member)
        if content is None:
            raise GuestMisbehaved(f"{member.name!r} has no content")
        with content, self.tree.file(parts) as file:
            left = member.size
            while left:
                chunk = content.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise GuestMisbehaved("the tar stream ends within a file")
                left -= len(chunk)
                file.write(chunk)
                self.size += len(chunk)
                if self.on_progress is not None:
                    self.on_progress(self.size)
            os.fchmod(file.fileno(), kept_mode(member.mode))
            with suppress(OverflowError, OSError):  # a time no file system of here can hold
                os.utime(file.fileno(), (member.mtime, member.mtime))

    def _defer(self, parts: Parts, target: str) -> None:
        self.link_bytes += len(target) + sum(map(len, parts))
        if self.link_bytes > _MAX_LINK_BYTES:
            raise TooLarge("the folder's links have more text than can be held")
        self.links[parts] = target

    def _hard_link(self, parts: Parts, member: tarfile.TarInfo) -> None:
        source = _below_top(member.linkname)
        try:
            self.tree.hard_link(source, parts)
        except (OSError, IndexError):
            self._skip(parts, f"a hard link to {member.linkname!r}, which did not come with it")

    def _skip(self, parts: Parts, why: str) -> None:
        if len(self.skipped) >= _MAX_SKIPPED:
            raise TooLarge(f"more than {_MAX_SKIPPED} entries of the folder cannot come")
        self.skipped.append(Skipped("/".join(parts), why))

    def finish(self) -> Transfer:
        """Make the links that stay inside; returns what came."""
        inside = {}
        for parts, target in self.links.items():
            if self._stays_inside(parts):
                inside[parts] = target
            else:
                self._skip(parts, f"a link that leads outside: {target!r}")
        for parts, target in inside.items():
            self.tree.symlink(parts, target)
        return Transfer(self.entries - len(self.skipped), self.size, self.skipped)

    def _stays_inside(self, link: Parts) -> bool:
        """Follow a link as the kernel would, through the others and those that were there."""
        here: list[str] = list(link[:-1])
        rest = self.links[link].split("/")[::-1]
        hops = 0
        if self.links[link].startswith("/") or len(self.links[link]) > _MAX_NAME:
            return False
        while rest:
            part = rest.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not here:
                    return False
                here.pop()
                continue
            here.append(part)
            target = self.links.get(tuple(here), self.tree.target(tuple(here)))
            if target is None:
                continue
            hops += 1
            if hops > _MAX_HOPS or target.startswith("/"):
                return False
            here.pop()
            rest.extend(target.split("/")[::-1])
        return True


def _below_top(name: str) -> Parts:
    """A name's parts below the archive's one top folder.

    Raises:
        GuestMisbehaved: it leads outside, or is longer or deeper than real ones.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    wrong = name.startswith("/") or ".." in parts or "\0" in name
    if wrong or len(parts) > _MAX_DEPTH or len(name) > _MAX_NAME:
        raise GuestMisbehaved(f"the tar stream names {name[:200]!r}, which cannot be")
    return parts[1:]
