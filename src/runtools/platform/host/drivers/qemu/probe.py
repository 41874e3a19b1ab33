"""Which accelerator really works on this machine.

That /dev/kvm is there, opens and makes machines does not say that a kernel runs in them: nested and
emulated virtualisation break at single instructions, or hang for minutes. So a tiny guest must answer
in time (`probe_guest.S`), and where a template's kernel is at hand,
that kernel must come to the end of its start. The finding holds until this machine, or QEMU, changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from runtools.platform.core.ports.driver import Capabilities, VmmFailed
from runtools.platform.host.drivers.qemu import probe_guest
from runtools.platform.host.drivers.qemu.command import PROGRAM, Accelerator, opened
from runtools.platform.kit import files, process

log = logging.getLogger(__name__)

KVM = Path("/dev/kvm")

_OLDEST = (8, 2)  # RAM mapped privately from a file that may only be read
_GUEST_SECONDS = 10.0
_KERNEL_SECONDS = 20.0
# What a kernel says at the very end of its start when it is given no root: nothing is wrong with it.
_KERNEL_ENDED = "Unable to mount root fs"
_LAST_WORDS = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """What machines run with here.

    Attributes:
        reason: why this accelerator, in one sentence.
        vmm: QEMU's version, as it names itself.
        host_cpu: the host's CPU, as far as saved states depend on it.
    """

    accelerator: Accelerator
    reason: str
    vmm: str
    host_cpu: str

    @property
    def capabilities(self) -> Capabilities:
        """What the driver says of it."""
        return Capabilities(
            isolation="hardware" if self.accelerator == "kvm" else "emulated",
            accelerator=self.accelerator,
            reason=self.reason,
            memory_survives=True,
        )


@dataclass(frozen=True, slots=True)
class _Finding:
    """What was tried, on which boot of this machine, with which VMM, and what came of it."""

    boot: str
    vmm: str
    kernel: bool
    works: bool
    reason: str


class Prober:
    """Chooses the accelerator."""

    def __init__(
        self,
        folder: Path,
        setting: Literal["auto", "kvm", "tcg"] = "auto",
        kernel: Callable[[], Path | None] = lambda: None,
    ) -> None:
        """``folder`` keeps the finding; ``kernel`` gives a template's kernel, once there is one."""
        self._file = folder / "accelerator.json"
        self._setting = setting
        self._kernel = kernel

    async def choose(self) -> Choice:
        """The accelerator in force.

        Raises:
            VmmFailed: QEMU is not installed or too old.
        """
        vmm = await _version()
        if self._setting != "auto":
            reason = f"the setting accelerator says {self._setting}"
            return Choice(self._setting, reason, vmm, _host_cpu(self._setting))
        finding = await self._find(vmm)
        accelerator: Accelerator = "kvm" if finding.works else "tcg"
        return Choice(accelerator, finding.reason, vmm, _host_cpu(accelerator))

    async def _find(self, vmm: str) -> _Finding:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        kernel = self._kernel()
        known = self._known()
        if known is not None and (known.boot, known.vmm) == (boot, vmm):
            told_all = not known.works or known.kernel or kernel is None
            if told_all:
                return known
        works, reason = await _try_kvm(kernel)
        finding = _Finding(boot, vmm, kernel is not None, works, reason)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(self._file, json.dumps(asdict(finding)).encode(), durable=False)
        log.info("accelerator: %s", reason)
        return finding

    def _known(self) -> _Finding | None:
        try:
            return _Finding(**json.loads(self._file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


async def _version() -> str:
    """QEMU's version, e.g. ``10.0.2 (Debian 1:10.0.2+ds-2)``."""
    if shutil.which(PROGRAM, path=process.PLAIN_ENV["PATH"]) is None:
        raise VmmFailed(f"{PROGRAM} is not installed; `runtools setup` installs it")
    said = (await process.run([PROGRAM, "--version"])).stdout.decode(errors="replace")
    match = re.search(r"version ((\d+)\.(\d+)[^\n]*)", said)
    if match is None:
        raise VmmFailed(f"{PROGRAM} does not tell its version: {said[:_LAST_WORDS]}")
    if (int(match[2]), int(match[3])) < _OLDEST:
        raise VmmFailed(
            f"QEMU {match[1]} is too old: {_OLDEST[0]}.{_OLDEST[1]} or newer is needed "
            "(Debian 12 has one in its backports)"
        )
    return match[1].strip()


def _host_cpu(accelerator: Accelerator) -> str:
    """The CPU that saved states depend on: all its features where the guest sees them."""
    found: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    model = found.get("model name", "unknown")
    if accelerator == "tcg":
        return f"emulated on {model}"
    return f"{model} {hashlib.sha256(found.get('flags', '').encode()).hexdigest()[:8]}"


async def _try_kvm(kernel: Path | None) -> tuple[bool, str]:
    """Whether KVM works, and the sentence that says why or why not."""
    if not KVM.exists():
        return False, "emulation: this machine has no /dev/kvm"
    with tempfile.TemporaryDirectory(prefix="runtools-probe-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        image = folder / "guest.bin"
        image.write_bytes(probe_guest.firmware())
        image.chmod(0o644)
        guest = ["-m", "64M", "-bios", str(image), "-device", "isa-debug-exit,iobase=0xf4"]
        said = await _says(folder, guest, probe_guest.PASSED, _GUEST_SECONDS)
        if said is not None:
            return False, f"emulation: /dev/kvm is there, but a tiny guest fails in it ({said})"
        if _closed_to_others(KVM):
            return (
                False,
                "emulation: KVM works, but root alone may open /dev/kvm, and no VMM is root",
            )
        if kernel is None:
            return True, "KVM: a tiny guest runs in it"
        fd = os.open(kernel, os.O_PATH | os.O_CLOEXEC)
        try:
            guest = [
                "-m",
                "256M",
                "-kernel",
                opened(fd),
                "-append",
                "console=ttyS0 panic=-1 reboot=t",
            ]
            said = await _says(folder, guest, _KERNEL_ENDED, _KERNEL_SECONDS, fd)
        finally:
            os.close(fd)
        if said is not None:
            return (
                False,
                f"emulation: /dev/kvm is there, but a kernel does not start in it ({said})",
            )
        return True, "KVM: a tiny guest and a template's kernel run in it"


async def _says(
    folder: Path, guest: list[str], wanted: str, seconds: float, *fds: int
) -> str | None:
    """None when the guest says what is wanted in time, else what happened instead."""
    output = folder / "said"
    output.unlink(missing_ok=True)
    words = [PROGRAM, "-M", "microvm", "-accel", "kvm", "-cpu", "host", "-nodefaults", "-no-reboot"]
    words += ["-no-user-config", "-display", "none", "-serial", "stdio", *guest]
    # As root: whether others may open the device is another question, with another answer.
    pid = await process.start_detached(words, output=output, pass_fds=fds)
    late = False
    try:
        async with asyncio.timeout(seconds):
            await process.wait_pid_gone(pid)
    except TimeoutError:
        late = True
    finally:
        # Not waited for: a machine that hangs in the kernel may take a minute to die.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    said = output.read_text(errors="replace")
    if wanted in said:
        return None
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[0][:_LAST_WORDS] if lines else "it says nothing"
    return f"no end within {seconds:g} s; {last}" if late else last


def device_groups(device: Path) -> list[int]:
    """The groups that an unprivileged VMM needs so that it may open a device."""
    stat = device.stat()
    return [] if stat.st_mode & 0o006 == 0o006 else [stat.st_gid]
