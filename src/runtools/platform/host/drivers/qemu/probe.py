"""Which accelerator really works on this machine.

That /dev/kvm is there, opens and makes machines does not say that a kernel runs in them: nested and
emulated virtualisation break at single instructions, or hang for minutes. So a tiny guest must answer
in time (`probe_guest.S`), and where a template's kernel is at hand,
that kernel must come to the end of its start. The finding holds until this machine, or QEMU, changes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from runtools.platform.core.ports.driver import Capabilities, VmmFailed
from runtools.platform.host.drivers.qemu import trial
from runtools.platform.host.drivers.qemu.command import PROGRAM, Accelerator
from runtools.platform.host.templates.kernel import kernel_arguments
from runtools.platform.kit import files, process

log = logging.getLogger(__name__)

KVM = Path("/dev/kvm")

_OLDEST = (8, 2)  # RAM mapped privately from a file that may only be read
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
        self.chosen: Choice | None = None

    async def choose(self) -> Choice:
        """The accelerator in force, for as long as this process lives.

        Raises:
            VmmFailed: QEMU is not installed or too old.
        """
        if self.chosen is None:
            self.chosen = await self._choose()
        return self.chosen

    async def _choose(self) -> Choice:
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
        try:
            files.write_atomic(self._file, json.dumps(asdict(finding)).encode(), durable=False)
        except OSError as exc:
            log.warning("what was found of KVM is not kept: %s", exc)
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
    if (said := await trial.tiny_guest("kvm")) is not None:
        return False, f"emulation: /dev/kvm is there, but a tiny guest fails in it ({said})"
    if _closed_to_others(KVM):
        return False, "emulation: KVM works, but /dev/kvm is root's alone, and no VMM is root"
    if kernel is None:
        return True, "KVM: a tiny guest runs in it"
    if (said := await trial.kernel("kvm", kernel, kernel_arguments(None))) is not None:
        return False, f"emulation: /dev/kvm is there, but a kernel does not start in it ({said})"
    return True, "KVM: a tiny guest and a template's kernel run in it"


def _closed_to_others(device: Path) -> bool:
    """Whether root alone may use a device."""
    stat = device.stat()
    group = stat.st_gid != 0 and stat.st_mode & 0o060 == 0o060
    return not group and stat.st_mode & 0o006 != 0o006


def device_groups(device: Path) -> list[int]:
    """The groups that an unprivileged VMM needs so that it may open a device."""
    stat = device.stat()
    return [] if stat.st_mode & 0o006 == 0o006 else [stat.st_gid]
