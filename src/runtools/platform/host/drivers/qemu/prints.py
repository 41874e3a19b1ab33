"""Fingerprints: what a saved state depends on, in words that a person can be told."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from runtools.platform.core.ports.driver import Fingerprint, Machine
from runtools.platform.host.drivers.qemu.command import LAYOUT
from runtools.platform.host.drivers.qemu.probe import Choice

_SAMPLES = 16
_SAMPLE = 4096


def fingerprint(machine: Machine, choice: Choice) -> Fingerprint:
    """What a state of the machine saved here and now depends on.

    The host's CPU counts under emulation too: the guest's clock is the host's counter, at the
    frequency that the guest was told when it booted.
    """
    return {
        "vmm": choice.vmm,
        "machine": f"microvm-{LAYOUT}",
        "accelerator": choice.accelerator,
        "cpu": choice.host_cpu,
        "kernel": _sampled(machine.kernel),
        "base": str(machine.base.stat().st_size),
        "vcpus": str(machine.vcpus),
        "memoryMb": str(machine.memory_mb),
    }


def _sampled(path: Path) -> str:
    """A digest of a file's size and of samples spread over it: kernels differ all over."""
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        digest.update(str(size).encode())
        for n in range(_SAMPLES):
            digest.update(os.pread(fd, _SAMPLE, size * n // _SAMPLES))
    finally:
        os.close(fd)
    return digest.hexdigest()[:16]
