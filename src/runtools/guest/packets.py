"""What the agent and a holder say to each other, and the numbers that the holder keeps in a file.

What is said is one packet each way (SOCK_SEQPACKET):

    !                            is answered with ! once the process was started
    ? and a number (8 bytes)     is answered once there is more output than that: ! and how it stands, as
                                 in `live`; or at the end: ! alone
    {"do": …}, newline, bytes    an act; answered in JSON, and again so to a repeat of its op
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

LIVE: Final = struct.Struct("<9q")
SEEN: Final = struct.Struct("<q")
END_BYTES: Final = 8192
MAX_INPUT: Final = 64 << 10
MAX_PACKET: Final = MAX_INPUT + 1024
READY: Final = b"!"


class Live(NamedTuple):
    """How a process stands, as its holder keeps it in a file."""

    output: int  # offsets of the ends of the streams
    stdout: int
    stderr: int
    taken: int  # bytes of input
    input_open: int
    rows: int
    columns: int
    pid: int  # 0 until it was started
    born: int
