"""Whether a VMM that is there also goes on: QEMU can stand still for good, and stay alive.

QEMU stops the virtual CPUs by itself in two kinds of trouble. After a fault of its own or of the
accelerator nothing will make them run again. After a write that the host's disk did not take it waits
to be told to go on, and then repeats the write.
"""

from __future__ import annotations

import logging

from runtools.platform.core.ports.driver import Machine, VmmFailed
from runtools.platform.host.drivers.qemu import saving

log = logging.getLogger(__name__)

_WAITS_FOR_THE_DISK = "io-error"


async def stuck(machine: Machine) -> str | None:
    """Why the machine will never go on, or None. One that waits for the disk is told to go on.

    One that does not answer is not called stuck: it may be busy, and its end is seen otherwise.
    """
    try:
        status = await saving.status(machine)
        if status in saving.BROKEN:
            return f"QEMU says {status}"
        if status == _WAITS_FOR_THE_DISK:
            log.warning("%s stood still: the host's disk did not take a write", machine.id)
            await saving.run(machine)
    except VmmFailed as exc:
        log.warning("%s could not be asked how it goes: %s", machine.id, exc)
    return None
