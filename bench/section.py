"""What a section of the benchmark is given: the platform, the floor, and how much to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Protocol

from bench.floor import Floor
from bench.table import Row
from runtools import RunTools
from runtools.platform.host.templates.initramfs import initrd_with_token
from runtools.platform.host.templates.kernel import host_tsc_khz, kernel_arguments
from runtools.platform.kit.config import load

TEMPLATE = "base-debian"
ACCELERATORS = {
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max"],
    "kvm": ["-accel", "kvm", "-cpu", "host"],
}


@dataclass
class Bench:
    """The running platform, and how often to measure; `quick` leaves out what takes minutes."""

    rt: RunTools
    work: Path
    rounds: int
    quick: bool

    @cached_property
    def floor(self) -> Floor:
        """A floor over the newest version of the template, under the platform's own accelerator, warm."""
        version = self.rt.templates.get(TEMPLATE).id
        image = load().host_home / "templates" / version
        accelerator = next(iter(self.rt.hosts.list())).accelerator
        initrd = self.work / "initrd"
        initrd_with_token(image / "initrd", "floor", initrd)
        tsc = host_tsc_khz() if accelerator == "tcg" else None
        arguments = kernel_arguments(tsc)
        floor = Floor(image, self.work, ACCELERATORS[accelerator], arguments, initrd)
        floor.warm()
        return floor

    def close(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.work)


class Section(Protocol):
    """A module of this package that `__main__.SECTIONS` names."""

    __name__: str

    def measure(self, bench: Bench) -> Iterator[Row]:
        """Each row as soon as it is measured; leaves nothing behind."""


def section(name: str) -> Section:
    """The section of that name."""
    return import_module(f"bench.{name}")
