"""The command line of a VMM. Pure: what it is told follows from its arguments alone.

A saved state can be restored only by a VMM with the same devices in the same order, so a change here
that the guest can see must come with a new `LAYOUT`, which is part of every fingerprint.

Files are named as the VMM sees them (`view`); its tap and its control socket are handed to it open.
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
class Handed:
    """What is no file of its view.

    Attributes:
        tap, qmp: open files by their numbers in the VMM.
        private: the RAM file is another's and only read; what the guest writes stays in the process.
    """

    tap: int
    qmp: int
    private: bool


def name(machine_id: str) -> str:
    """The word by which a machine's processes are known."""
    return f"runtools-{machine_id}"


def arguments(
    machine: Machine, accelerator: Accelerator, handed: Handed, boot: str | None
) -> list[str]:
    """The whole command line. ``boot`` is what a kernel is told that boots cold; without it the VMM

    waits to be given a saved state.
    """
    words = [
        *(PROGRAM, "-name", name(machine.id)),
        *("-sandbox", _SECCOMP),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", f"{MACHINE},memory-backend=ram0,suppress-vmdesc=on"),
        *("-object", _ram(machine.memory_mb, private=handed.private)),
        *("-m", f"{machine.memory_mb}M", "-smp", str(machine.vcpus)),
        *_cpu(accelerator),
        # State is saved without the header that names the machine type: fingerprints do that.
        *("-global", "migration.send-configuration=off"),
        *("-global", "virtio-mmio.force-legacy=off"),
        *("-chardev", "file,id=console,path=/console", "-serial", "chardev:console"),
        *("-blockdev", _disk("base", "read-only=on")),
        *("-device", "virtio-blk-device,drive=base"),
        *("-blockdev", _disk("overlay", "discard=unmap")),
        *("-device", "virtio-blk-device,drive=overlay"),
        *("-netdev", f"tap,id=net,fd={handed.tap},vhost=off"),
        *("-device", f"virtio-net-device,netdev=net,mac={GUEST_MAC}"),
        *("-chardev", f"socket,id=qmp,fd={handed.qmp},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        "-S",
    ]
    if boot is None:
        return [*words, "-incoming", "defer"]
    return [*words, "-kernel", "/kernel", "-initrd", "/initrd", "-append", boot]


def _ram(size_mb: int, *, private: bool) -> str:
    how = "share=off,readonly=on,rom=off" if private else "share=on"
    return f"memory-backend-file,id=ram0,size={size_mb}M,mem-path=/ram,dump=off,{how}"


def _cpu(accelerator: Accelerator) -> tuple[str, ...]:
    if accelerator == "kvm":
        return ("-accel", "kvm", "-cpu", "host")
    return ("-accel", f"tcg,thread=multi,tb-size={TCG_BUFFER_MB}", "-cpu", "max")


def _disk(node: str, option: str) -> str:
    return f"driver=raw,node-name={node},{option},file.driver=file,file.filename=/{node}"
