"""TCP as the kernel shows it: ports that listen, connections from outside and what they carried."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

_LISTEN: Final = "0A"
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_ROOT_OR_MATCH: Final = 0x300
_REQUEST: Final = 1
_INFO: Final = 2  # INET_DIAG_INFO: the attribute that holds struct tcp_info
_ESTABLISHED_BIT: Final = 1 << 1
_NLMSG_DONE: Final = 3
_NLMSG_ERROR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_MESSAGE: Final = 72  # struct inet_diag_msg
_ACKED_AT: Final = 120  # tcpi_bytes_acked and tcpi_bytes_received within struct tcp_info
_LOOPBACK: Final = (bytes([127]), bytes(15) + b"\1", bytes(10) + b"\xff\xff\x7f")


def listening() -> list[int]:
    """The TCP ports on which something listens, in order."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                rows = file.readlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTEN:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


def inbound(own_port: int) -> tuple[int, int | None]:
    """How many connections from outside are open to ports of the machine, and their bytes so far.

    The agent's own port is not counted. Bytes are None where the kernel lacks ``sock_diag``.
    """
    served = set(listening()) - {own_port}
    count, carried = 0, 0
    try:
        for port, peer, moved in _established():
            if port in served and not peer.startswith(_LOOPBACK):
                count += 1
                carried += moved
    except OSError:
        return 0, None
    return count, carried


def _established() -> Iterator[tuple[int, bytes, int]]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(2.0)
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = struct.pack(
                "=BBBBI48x", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _ESTABLISHED_BIT
            )
            head = _HEADER.pack(
                _HEADER.size + len(wanted),
                _SOCK_DIAG_BY_FAMILY,
                _REQUEST | _ROOT_OR_MATCH,
                family,
                0,
            )
            netlink.send(head + wanted)
            yield from _replies(netlink, family)


def _replies(netlink: socket.socket, family: int) -> Iterator[tuple[int, bytes, int]]:
    while True:
        data = netlink.recv(1 << 16)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError("the kernel refuses sock_diag")
            yield _reply(data[_HEADER.size : length], family)
            data = data[(length + 3) & ~3 :]


def _reply(message: bytes, family: int) -> tuple[int, bytes, int]:
    (port,) = struct.unpack_from(">H", message, 4)
    peer = message[24:40] if family == socket.AF_INET6 else message[24:28]
    moved = 0
    rest = message[_MESSAGE:]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if kind == _INFO and length >= _ATTRIBUTE.size + _ACKED_AT + 16:
            moved = sum(struct.unpack_from("=QQ", rest, _ATTRIBUTE.size + _ACKED_AT))
        rest = rest[(max(length, _ATTRIBUTE.size) + 3) & ~3 :]
    return port, peer, moved
