"""What a VMM sees of the file system: its program and its own files, and of the host nothing else.

    /usr/bin /lib … /usr/share   the program, its libraries and firmware, and what its holder needs
    /held                        the holder's working folder; root's, closed to the VMM
    /box                         the VMM's own folder, the only one in which it can write
    /base /overlay /ram …        files that were handed to it

The upper part is the same for all. It is laid once, in a mount namespace that nobody else sees
(`Software`), of which each VMM's view is a copy, its own files put in: 1 ms, where a copy of the host's
whole tree would first have to be made and then thrown away.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtools.platform.host.drivers.qemu import syscalls
from runtools.platform.host.drivers.qemu.command import PROGRAM
from runtools.platform.host.drivers.qemu.probe import KVM
from runtools.platform.kit import linux, process
from runtools.platform.kit.spent import in_spent_thread
from runtools.platform.kit.unbroken import to_its_end

BOX, HELD = "/box", "/held"

_TOOLS = ("sh", "dd", "mv", "cat", "setpriv")
_FIRMWARE = ("/usr/share/qemu", "/usr/share/seabios")
_MODULES = Path("/usr/lib/x86_64-linux-gnu/qemu")
_ALSO = ("/etc/ld.so.cache",)
_NULL = "/dev/null"
_FOLDERS = (BOX, HELD)
FILES = ("base", "overlay", "ram", "kernel", "initrd", "devices", "console")
"""The names by which files may be handed over."""

_QUIET = linux.MOUNT_NO_SUID | linux.MOUNT_NO_DEVICES
_FIXED = _QUIET | linux.MOUNT_READ_ONLY
_READ = _FIXED | linux.MOUNT_NO_EXEC
_WRITE = _QUIET | linux.MOUNT_NO_EXEC
_DEVICE = linux.MOUNT_NO_SUID | linux.MOUNT_NO_EXEC

# CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP: to make the VMM a user with nothing, and, since the
# kernel asks whether the dying may signal their children, to take it along.
_OF_THE_HOLDER = {5, 6, 7, 8}


@dataclass(frozen=True, slots=True)
class Handed:
    """What one VMM is shown, by open files.

    Attributes:
        box, held: its own folder, and its holder's.
        readable, writable: files by their names in the view.
        kvm: whether it needs the device.
    """

    box: int
    held: int
    readable: Mapping[str, int]
    writable: Mapping[str, int]
    kvm: bool = False


@dataclass(slots=True)
class Software:
    """The part of the view that is the same for all. It is laid at the first need."""

    _laying: asyncio.Lock = field(default_factory=asyncio.Lock)
    _namespace: int | None = None

    async def laid(self) -> int:
        """The mount namespace in which it lies, as an open file."""
        async with self._laying:
            if self._namespace is None:
                await to_its_end(self._lay())
        assert self._namespace is not None  # noqa: S101 - it has just been laid
        return self._namespace

    async def _lay(self) -> None:
        files = await _needed()
        # Nobody but the thread that mounts there ever sees anything in this folder.
        root = tempfile.mkdtemp(prefix="runtools-view-")
        try:
            laying = in_spent_thread(lambda: _lay(root, files), "laying a view")
            self._namespace = await laying
        finally:
            Path(root).rmdir()

    def __del__(self) -> None:
        """Nobody sees the namespace any more."""
        if self._namespace is not None:
            os.close(self._namespace)


def enter(software: int, handed: Handed) -> None:
    """Move the calling thread into a view of its own, without network and with the filter.

    What it starts from here on, and the thread itself, has no way back.
    """
    shown = [
        (linux.detached(handed.box, _WRITE), BOX),
        (linux.detached(handed.held, _WRITE), HELD),
        *((linux.detached(fd, _READ), f"/{name}") for name, fd in handed.readable.items()),
        *((linux.detached(fd, _WRITE), f"/{name}") for name, fd in handed.writable.items()),
    ]
    if handed.kvm:
        device = os.open(KVM, os.O_PATH | os.O_CLOEXEC)
        shown.append((linux.detached(device, _DEVICE), str(KVM)))
        os.close(device)
    linux.keep_capabilities(_OF_THE_HOLDER)
    linux.unshare_folders()
    linux.setns(software, linux.CLONE_NEWNS)
    linux.unshare(linux.CLONE_NEWNS, linux.CLONE_NEWNET, linux.CLONE_NEWIPC, linux.CLONE_NEWUTS)
    for tree, target in shown:
        linux.attach(tree, target)
        os.close(tree)
    linux.filter_system_calls(syscalls.program())


async def _needed() -> list[str]:
    """Programs, libraries, modules and firmware, by their paths on this machine."""
    path = process.PLAIN_ENV["PATH"]
    programs = [shutil.which(name, path=path) for name in (PROGRAM, *_TOOLS)]
    absent = [name for name, at in zip((PROGRAM, *_TOOLS), programs, strict=True) if at is None]
    if absent:
        raise FileNotFoundError(f"not installed: {', '.join(absent)}; `runtools setup` installs it")
    found = [at for at in programs if at is not None]
    modules = [str(each) for each in sorted(_MODULES.glob("accel-*.so"))]
    said = (await process.run(["ldd", *found, *modules])).stdout.decode(errors="replace")
    libraries = re.findall(r"(?:=>|^)\s+(/\S+) \(0x", said, re.MULTILINE)
    rest = [each for each in (*_FIRMWARE, *_ALSO) if Path(each).exists()]
    return sorted({*found, *modules, *libraries, *rest})


def _lay(root: str, needed: Sequence[str]) -> int:
    """Make the namespace, in a thread that ends with it."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.keep_mounts_apart()
    linux.mount_tmpfs(root, "mode=755,size=1m,nr_inodes=1k")
    for source in needed:
        _show(source, root + source)
    for name in _FOLDERS:
        Path(root + name).mkdir()
    for name in (*(f"/{name}" for name in FILES), _NULL, str(KVM)):
        _placeholder(Path(root + name))
    linux.restrict_mounts(root, _FIXED, below=True)
    linux.bind(_NULL, root + _NULL)
    linux.restrict_mounts(root + _NULL, _DEVICE)
    namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    linux.pivot_root(root)
    return namespace


def _show(source: str, target: str) -> None:
    if Path(source).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        _placeholder(Path(target))
    linux.bind(source, target)


def _placeholder(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=0o644)
