"""The guest agent as a local machine runs it: ``python3 -S -m runtools.local_agent``, from `agent_zip`.

A local machine has no disk device: its tree lies in a file system of the host. To grow the disk is to
say how large that is.
"""

from __future__ import annotations

import os

from runtools.guest import disk
from runtools.guest.__main__ import main


def _size(device: str, wanted: int) -> int:
    now = os.statvfs("/")
    return now.f_blocks * now.f_frsize


if __name__ == "__main__":
    disk.grow = _size
    main()
