"""A machine that is nothing but its folder, and the places in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtools.platform.core.ports.driver import Machine, Slot
from runtools.platform.host.drivers.qemu.place import Place


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    files = {name: tmp_path / name for name in ("base", "kernel", "initrd", "overlay")}
    slot = Slot("", "", 0)
    return Machine("m", tmp_path, 1, 512, **files, uid=os.getuid(), slot=slot, boot_token="t")


@pytest.fixture
def place(machine: Machine) -> Place:
    place = Place(machine)
    place.prepare()
    return place
