"""A process that does one act of a driver, to be killed in the middle of it.

``victim.py MODULE:FACTORY ACT MACHINE CAPTURE``; says ``ready``, waits for a line, and acts.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from runtools.platform.core.ports.driver import Driver, Machine, Slot
from runtools.platform.host.disk.files import copy_sparse

_PATHS = ("folder", "base", "kernel", "initrd", "overlay")


def as_text(machine: Machine) -> str:
    """A machine as an argument of a command."""
    return json.dumps(asdict(machine), default=str)


def from_text(text: str) -> Machine:
    """What `as_text` wrote."""
    fields = json.loads(text)
    paths = {name: Path(fields[name]) for name in _PATHS}
    return Machine(**{**fields, **paths, "slot": Slot(**fields["slot"])})


async def _act(driver: Driver, act: str, machine: Machine, capture: Path) -> None:
    async def copy() -> None:
        await copy_sparse(machine.overlay, capture / "overlay.img")

    if act == "capture":
        await driver.capture(machine, capture, copy)
    elif act == "clone":
        await driver.clone(machine, capture)
    else:
        await getattr(driver, act)(machine)


def main(factory: str, act: str, machine: str, capture: str) -> None:
    """Do it when told to."""
    module, _, name = factory.partition(":")
    driver: Driver = getattr(importlib.import_module(module), name)()
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    asyncio.run(_act(driver, act, from_text(machine), Path(capture)))


if __name__ == "__main__":
    main(*sys.argv[1:])
