"""Trying an accelerator out: guests of a moment that must say something in time, or be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from pathlib import Path

from runtools.platform.host.drivers.qemu import probe_guest
from runtools.platform.host.drivers.qemu.command import MACHINE, PROGRAM, Accelerator
from runtools.platform.kit import process

_GUEST_SECONDS = 10.0
_KERNEL_SECONDS = 20.0
# What a kernel says at the very end of its start when it is given no root: nothing is wrong with it.
_KERNEL_ENDED = "Unable to mount root fs"
_LAST_WORDS = 200
_MUCH = 1 << 20


async def tiny_guest(accelerator: Accelerator, seconds: float = _GUEST_SECONDS) -> str | None:
    """Run `probe_guest`. None when it passes, else what happened instead."""
    with tempfile.NamedTemporaryFile(prefix="runtools-probe-") as image:
        image.write(probe_guest.firmware())
        image.flush()
        guest = ["-m", "64M", "-bios", image.name, "-device", "isa-debug-exit,iobase=0xf4"]
        return await _says(accelerator, guest, probe_guest.PASSED, seconds)


async def kernel(
    accelerator: Accelerator, image: Path, arguments: str, seconds: float = _KERNEL_SECONDS
) -> str | None:
    """Start a kernel that will find no root. None when it comes that far, else what happened."""
    fd = os.open(image, os.O_PATH | os.O_CLOEXEC)
    try:
        guest = ["-m", "256M", "-kernel", f"/proc/self/fd/{fd}", "-append", arguments]
        return await _says(accelerator, guest, _KERNEL_ENDED, seconds, fd)
    finally:
        os.close(fd)


async def _says(
    accelerator: Accelerator, guest: list[str], wanted: str, seconds: float, *fds: int
) -> str | None:
    cpu = "host" if accelerator == "kvm" else "max"
    words = [PROGRAM, "-machine", MACHINE, "-accel", accelerator, "-cpu", cpu, "-nodefaults"]
    words += ["-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", *guest]
    late = False
    with tempfile.NamedTemporaryFile(prefix="runtools-probe-") as output:
        # As root: whether others may open the device is another question, with another answer.
        pid = await process.start_detached(words, output=Path(output.name), pass_fds=fds)
        try:
            async with asyncio.timeout(seconds):
                await process.wait_pid_gone(pid)
        except TimeoutError:
            late = True
        finally:
            # Not waited for: a machine that hangs in the kernel may take a minute to die.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        said = output.read(_MUCH).decode(errors="replace")
    if wanted in said:
        return None
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = lines[0][:_LAST_WORDS] if lines else "it says nothing"
    return f"no end within {seconds:g} s; {first}" if late else first
