"""The guest agent as a local machine runs it: ``python3 -S -m runtools.local_agent``, from `agent_zip`.

It says that it is no machine: kernel, clock and entropy are the host's and need no renewal. There is
no disk device either; the tree lies in a file system of the host, and to grow the disk is to say how
large that is.
"""

from __future__ import annotations

import os

from runtools.guest import __main__ as agent
from runtools.guest import disk
from runtools.guest.paths import Root


class _StandIn(Root):
    """All files where a machine has them, but no machine."""

    def __init__(self, folder: str = "/") -> None:
        super().__init__(folder)
        self.real = False


def _size(device: str, wanted: int) -> int:
    now = os.statvfs("/")
    return now.f_blocks * now.f_frsize


def main() -> None:
    """Serve."""
    vars(agent)["Root"] = _StandIn
    disk.grow = _size
    agent.main()


if __name__ == "__main__":
    main()
