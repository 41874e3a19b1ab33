"""A folder of this machine as a tar stream."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runtools.errors import InvalidRequest
from runtools.sdk.local import CHUNK_BYTES, Skipped, Source, Transfer, unusable


@dataclass(slots=True)
class Folder:
    """A folder of this machine, to be sent. What cannot come with it is told in ``skipped``."""

    path: Path
    entries: int = 0
    size_bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def source(self) -> Source:
        """The folder as a tar stream, names relative to it."""
        return Source(self.pack, None, again=True)

    def done(self) -> Transfer:
        """What was sent last."""
        return Transfer(self.entries, self.size_bytes, self.skipped)

    def pack(self) -> Iterator[bytes]:
        """The tar stream. Links that stay inside stay links; others, and devices, are left out.

        Raises:
            InvalidRequest: an entry cannot be read, or shrank while it was.
        """
        self.entries, self.size_bytes, self.skipped = 0, 0, []
        root = os.path.realpath(self.path)
        for name, entry in _walk(self.path):
            try:
                member = _member(name, entry)
                if member is None:
                    self.skipped.append(Skipped(name, "neither a file, a folder nor a link"))
                elif member.issym() and not _leads_inside(entry.path, member.linkname, root):
                    self.skipped.append(
                        Skipped(name, f"a link that leads outside: {member.linkname!r}")
                    )
                else:
                    self.entries += 1
                    self.size_bytes += member.size
                    yield from _packed(member, entry.path)
            except OSError as exc:
                raise unusable(Path(entry.path), exc) from None
        yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    rest: list[tuple[str, str]] = [("", str(folder))]
    while rest:
        prefix, path = rest.pop()
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as exc:
            raise unusable(Path(path), exc) from None
        for entry in entries:
            yield prefix + entry.name, entry
            if entry.is_dir(follow_symlinks=False):
                rest.append((f"{prefix}{entry.name}/", entry.path))


def _member(name: str, entry: os.DirEntry[str]) -> tarfile.TarInfo | None:
    info = entry.stat(follow_symlinks=False)
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = stat.S_IMODE(info.st_mode), int(info.st_mtime)
    if stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, str(Path(entry.path).readlink())
    elif stat.S_ISREG(info.st_mode):
        member.size = info.st_size
    else:
        return None
    return member


def _leads_inside(place: str, target: str, root: str) -> bool:
    end = os.path.realpath(Path(place).parent / target)
    return not target.startswith("/") and f"{end}/".startswith(f"{root.rstrip('/')}/")


def _packed(member: tarfile.TarInfo, path: str) -> Iterator[bytes]:
    yield member.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    if not member.isreg():
        return
    left = member.size
    with Path(path).open("rb", buffering=0) as file:
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
    if left:
        raise InvalidRequest(f"{path} shrank while it was read", hint="try again")
    yield bytes(-member.size % tarfile.BLOCKSIZE)
