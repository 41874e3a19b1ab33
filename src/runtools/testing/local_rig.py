"""The driver suite's rig for local machines."""

from __future__ import annotations

from pathlib import Path

from runtools.platform.core.ports.driver import Machine
from runtools.testing.contracts.driver_rig import DriverRig
from runtools.testing.local_driver import LocalDriver
from runtools.testing.local_place import Place
from runtools.testing.local_template import make_image
from runtools.testing.null_network import NullNetwork


def first_process(machine: Machine) -> int:
    """The pid of a live machine's first process."""
    pid = Place(machine.folder / "vmm").first()
    assert pid is not None
    return pid


async def make_local_rig(folder: Path) -> DriverRig:
    """Local machines in a folder."""
    return DriverRig(
        make=LocalDriver,
        factory=f"{LocalDriver.__module__}:{LocalDriver.__name__}",
        image=await make_image(folder / "image", "tpl_local", "base-local", 1),
        folder=folder,
        network=NullNetwork(),
        vmm=first_process,
    )
