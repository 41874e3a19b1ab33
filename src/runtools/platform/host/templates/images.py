"""What a finished template version is: three files that boot any number of machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BASE = "base.erofs"
KERNEL = "kernel"
INITRD = "initrd"
LOG = "build.log"
RECORD = "template.json"


@dataclass(frozen=True, slots=True)
class Image:
    """An immutable template version.

    Attributes:
        version_id: its id.
        slug, version: its name and number among those of that name.
        folder: where it lies.
        base: the read-only root file system (erofs), shared by all machines of this version.
        kernel: an ELF kernel.
        initrd: what the kernel starts first; each boot appends its token.
        size_bytes: what it occupies on disk.
        rehearsal: commands that must succeed in a machine of it before it is captured.
    """

    version_id: str
    slug: str
    version: int
    folder: Path
    base: Path
    kernel: Path
    initrd: Path
    size_bytes: int
    rehearsal: tuple[tuple[str, ...], ...] = ()
