"""Messages of the kernel's packet filter, put together and taken apart.

Wire format: include/uapi/linux/netlink.h and netfilter/nfnetlink.h of Linux.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

GENERAL = struct.Struct("!BBH")  # family, version, resource
ERROR = 2

_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_REQUEST = 0x1


def open_socket(groups: int = 0) -> socket.socket:
    """One that does not block; ``groups`` are those whose news it hears."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
    sock.bind((0, groups))
    return sock


def message(
    kind: int, flags: int, sequence: int, family: int, resource: int, body: bytes = b""
) -> bytes:
    """One message, with a request for an answer where the flags have it."""
    general = GENERAL.pack(family, 0, resource)
    size = _HEADER.size + len(general) + len(body)
    return _HEADER.pack(size, kind, _REQUEST | flags, sequence, 0) + general + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message."""
    while len(data) >= _HEADER.size:
        size, kind, _, sequence, _ = _HEADER.unpack_from(data)
        if size < _HEADER.size:
            return
        yield kind, sequence, data[_HEADER.size : size]
        data = data[(size + 3) & ~3 :]


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, value: bytes) -> bytes:
    """An attribute whose value are attributes."""
    return attribute(kind | _NESTED, value)


def text(kind: int, value: str) -> bytes:
    """An attribute whose value is a text."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute."""
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if size < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : size]
        data = data[(size + 3) & ~3 :]


def raise_error(kind: int, body: bytes) -> None:
    """Of an error that is one; 0 says that all went well.

    Raises:
        OSError: the kernel refuses.
    """
    code = -struct.unpack_from("=i", body)[0] if kind == ERROR else 0
    if code:
        raise OSError(code, os.strerror(code))
