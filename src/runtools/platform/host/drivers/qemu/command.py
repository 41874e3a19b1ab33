"""The command line of a VMM. Pure: what it is told follows from its arguments alone.

A saved state can be restored only by a VMM with the same devices in the same order, so a change here
that the guest can see must come with a new `LAYOUT`, which is part of every fingerprint.

Whatever lies outside the VMM's own folder is handed to it as an open file and named
``/proc/self/fd/N``: it needs no way through the host's folders and sees nothing else in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtools.platform.core.ports.driver import Machine

PROGRAM = "qemu-system-x86_64"
LAYOUT = "2"
GUEST_MAC = "52:54:00:12:34:56"
# Without the old timer and interrupt controller: the guest's kernel, told by ACPI that they are not
# used, leaves both as they were, and an early tick arrives as a division by zero that ends the boot.
MACHINE = "microvm,pit=off,pic=off"

# Takes memory only as far as it is used. docs/decisions/0005 has the figures.
TCG_BUFFER_MB = 128

Accelerator = Literal["kvm", "tcg"]

# All four are possible because the VMM never has a privilege that it would have to give up itself.
_SECCOMP = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the guest's RAM lies.

    ``private``: the file is another's and only read; what the guest writes stays in the process.
    """

    path: str
    private: bool


@dataclass(frozen=True, slots=True)
class Boot:
    """What only a cold boot needs."""

    kernel: str
    initrd: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Handed:
    """Open files by their numbers in the VMM, and its RAM."""

    base: int
    overlay: int
    tap: int
    qmp: int
    memory: Memory


def opened(fd: int) -> str:
    """The path by which a process opens a file anew that it was handed."""
    return f"/proc/self/fd/{fd}"


def name(machine_id: str) -> str:
    """The word by which a machine's processes are known."""
    return f"runtools-{machine_id}"


def arguments(
    machine: Machine, accelerator: Accelerator, handed: Handed, boot: Boot | None
) -> list[str]:
    """The whole command line; without ``boot`` the VMM waits to be given a saved state."""
    words = [
        *(PROGRAM, "-name", name(machine.id)),
        *("-sandbox", _SECCOMP),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", f"{MACHINE},memory-backend=ram0,suppress-vmdesc=on"),
        *("-object", _ram(handed.memory, machine.memory_mb)),
        *("-m", f"{machine.memory_mb}M", "-smp", str(machine.vcpus)),
        *_cpu(accelerator),
        # State is saved without the header that names the machine type: fingerprints do that.
        *("-global", "migration.send-configuration=off"),
        *("-global", "virtio-mmio.force-legacy=off"),
        *("-chardev", "file,id=console,path=console.pipe", "-serial", "chardev:console"),
        *("-blockdev", _disk("base", handed.base, "read-only=on")),
        *("-device", "virtio-blk-device,drive=base"),
        *("-blockdev", _disk("overlay", handed.overlay, "discard=unmap")),
        *("-device", "virtio-blk-device,drive=overlay"),
        *("-netdev", f"tap,id=net,fd={handed.tap},vhost=off"),
        *("-device", f"virtio-net-device,netdev=net,mac={GUEST_MAC}"),
        *("-chardev", f"socket,id=qmp,fd={handed.qmp},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        "-S",
    ]
    if boot is None:
        return [*words, "-incoming", "defer"]
    return [*words, "-kernel", boot.kernel, "-initrd", boot.initrd, "-append", boot.arguments]


def _ram(memory: Memory, size_mb: int) -> str:
    how = "share=off,readonly=on,rom=off" if memory.private else "share=on"
    return f"memory-backend-file,id=ram0,size={size_mb}M,mem-path={memory.path},dump=off,{how}"


def _cpu(accelerator: Accelerator) -> tuple[str, ...]:
    if accelerator == "kvm":
        return ("-accel", "kvm", "-cpu", "host")
    return ("-accel", f"tcg,thread=multi,tb-size={TCG_BUFFER_MB}", "-cpu", "max")


def _disk(node: str, fd: int, option: str) -> str:
    return f"driver=raw,node-name={node},{option},file.driver=file,file.filename={opened(fd)}"
