"""Which accelerator works on this machine: stub."""

from __future__ import annotations

from dataclasses import dataclass

from runtools.platform.core.ports.driver import Capabilities
from runtools.platform.host.drivers.qemu.command import Accelerator


@dataclass(frozen=True, slots=True)
class Choice:
    """stub"""

    accelerator: Accelerator
    reason: str
    vmm: str
    host_cpu: str

    @property
    def capabilities(self) -> Capabilities:
        """What is said of it to others."""
        return Capabilities(
            isolation="hardware" if self.accelerator == "kvm" else "emulated",
            accelerator=self.accelerator,
            reason=self.reason,
            memory_survives=True,
        )


class Prober:
    """stub"""

    async def choose(self) -> Choice:
        return Choice("tcg", "stub", "10", "cpu")
