"""Files that do not say how long they are: the kernel's, below /proc and /sys. Known by reading alone.

Those of /proc say that they are empty, those of /sys that they have a page or so. They are read to their
end before anything is said of their size.
"""

from __future__ import annotations

import os
from typing import Final

from runtools.guest.problems import Problem

MOST: Final = 64 << 20
_PROBE: Final = 65_536


def content(fd: int, path: str) -> bytes | None:
    """All that such a file holds; None: the file's size is true.

    Raises:
        Problem: it holds more than can be taken at once; nothing of it is handed out.
        OSError: it cannot be read.
    """
    found = os.fstat(fd)
    asked = min(found.st_size, _PROBE)
    # Only what lies on no disk is in question, and a hole reads as long as it says.
    if asked and (found.st_blocks or len(os.pread(fd, asked, 0)) == asked):
        return None
    parts: list[bytes] = []
    size = 0
    while data := os.pread(fd, min(MOST + 1 - size, 1 << 20), size):
        parts.append(data)
        size += len(data)
        if size > MOST:
            raise Problem(
                "too_large",
                f"{path} does not say how long it is and has more than {MOST >> 20} MB",
                hint="read it by a command in the sandbox",
            )
    return b"".join(parts)
