"""The tap device of a sandbox, opened so that it can be handed to a VMM that has no network itself."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000


def open_tap(name: str) -> int:
    """Attach to a tap of the calling thread's namespace; it is the VMM's who is given the file.

    Raises:
        OSError: there is no such tap, or another VMM has it.
    """
    try:
        socket.if_nametoindex(name)  # to attach to one that is not there would make it
    except OSError as exc:
        raise OSError(errno.ENODEV, "there is no such tap", name) from exc
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except BaseException:
        os.close(fd)
        raise
    return fd
