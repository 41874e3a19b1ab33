"""What is said to nftables without its program, which would take 10 ms: pins put into a set, refused
packets heard of and counted, changes of the host's ruleset heard of. A socket for a namespace is opened
inside it and works from there.

Wire format: include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h and nfnetlink_log.h of Linux.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from runtools.platform.host.net.enter import inside
from runtools.platform.host.net.nfmessages import (
    ERROR,
    GENERAL,
    attribute,
    attributes,
    message,
    messages,
    nested,
    open_socket,
    raise_error,
    text,
)

_ACK, _CREATE = 0x4, 0x400

_NFTABLES, _LOG = 10, 4
_CHANGES_GROUP = 1 << (7 - 1)
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_ELEMENT, _DELETE_ELEMENT = _NFTABLES << 8 | 12, _NFTABLES << 8 | 14
_GET_ELEMENTS, _NEW_GENERATION = _NFTABLES << 8 | 13, _NFTABLES << 8 | 15
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_LIST_ELEMENT = 1
_KEY, _TIMEOUT, _EXPRESSION = 1, 4, 7
_VALUE = 1
_EXPRESSION_DATA = 2
_INET = 1  # the family of tables for IPv4 and IPv6

_NEW_OBJECT, _TAKE_OBJECTS = _NFTABLES << 8 | 18, _NFTABLES << 8 | 21
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 1, 2, 3, 4
_COUNTER = 1
_COUNTER_PACKETS = 2
_DUMP = 0x300
_DONE = 3

_LOG_PACKET, _LOG_CONFIG = _LOG << 8 | 0, _LOG << 8 | 1
_CONFIG_COMMAND, _CONFIG_MODE, _CONFIG_THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_LOG_PAYLOAD, _LOG_PREFIX = 9, 10
_COPIED = 64

_ANSWER_SECONDS = 2.0
_BUFFER = 65_536
_DRAINED = 256


class Full(Exception):
    """The set holds as many elements as it may."""


class Elements:
    """Puts addresses with a lifetime into a set of a table (family ip) of one namespace."""

    def __init__(self, sock: socket.socket, table: str, name: str) -> None:
        self._sock = sock
        self._where = text(_TABLE, table) + text(_SET, name)
        self._sequence = 0
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, namespace: str, table: str, name: str) -> Elements:
        """Ready for a set that need not be there yet."""
        return cls(await inside(namespace, open_socket), table, name)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    async def put(self, addresses: Iterable[IPv4Address], seconds: int) -> None:
        """Have the addresses in the set for so long from now.

        Raises:
            Full: it has no room for them.
            OSError: the kernel refuses, because there is no such set, for instance.
        """
        element = b"".join(nested(_LIST_ELEMENT, _key(one)) for one in addresses)
        timed = b"".join(
            nested(
                _LIST_ELEMENT, _key(one) + attribute(_TIMEOUT, struct.pack("!Q", seconds * 1000))
            )
            for one in addresses
        )
        async with self._turn:
            # Whether an element is there or has just run out nobody knows: added, it is; taken away
            # and added again, it has the new lifetime. All or nothing of it is done.
            batch = [
                (_NEW_ELEMENT, _CREATE, timed),
                (_DELETE_ELEMENT, 0, element),
                (_NEW_ELEMENT, _CREATE, timed),
            ]
            await self._commit(batch)

    async def _commit(self, batch: list[tuple[int, int, bytes]]) -> None:
        first = self._sequence = (self._sequence + 1) & 0x7FFF_FFFF
        said = message(_BATCH_BEGIN, 0, first, 0, _NFTABLES)
        wanted = set()
        for kind, flags, elements in batch:
            self._sequence += 1
            wanted.add(self._sequence)
            body = self._where + nested(_ELEMENTS, elements)
            said += message(kind, _ACK | flags, self._sequence, socket.AF_INET, 0, body)
        self._sequence += 1
        said += message(_BATCH_END, 0, self._sequence, 0, _NFTABLES)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_ANSWER_SECONDS):
            await loop.sock_sendall(self._sock, said)
            while wanted:
                for kind, sequence, body in messages(await loop.sock_recv(self._sock, _BUFFER)):
                    if kind != ERROR or not first <= sequence <= self._sequence:
                        continue
                    code = -struct.unpack_from("=i", body)[0]
                    if code in (errno.ENFILE, errno.ENOSPC):
                        raise Full
                    if code:
                        raise OSError(code, os.strerror(code))
                    wanted.discard(sequence)


@dataclass(frozen=True, slots=True)
class Logged:
    """A packet that a rule with `log` has met: what the rule says of it, and its first bytes."""

    prefix: str
    packet: bytes


class PacketLog:
    """Hears the packets that rules of one namespace log to a group."""

    def __init__(self, sock: socket.socket, hear: Callable[[Logged], None]) -> None:
        self._sock = sock
        self._hear = hear
        asyncio.get_running_loop().add_reader(sock, self._read)

    @classmethod
    async def open(cls, namespace: str, group: int, hear: Callable[[Logged], None]) -> PacketLog:
        """Listen.

        Raises:
            OSError: somebody listens already.
        """

        def bound() -> socket.socket:
            sock = open_socket()
            try:
                _bind(sock, group)
            except BaseException:
                sock.close()
                raise
            return sock

        return cls(await inside(namespace, bound), hear)

    def close(self) -> None:
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def drain(self) -> None:
        """Hear what has come so far."""
        for _ in range(_DRAINED):
            if not self._read():
                return

    def _read(self) -> bool:
        """Hear some; whether there may be more."""
        try:
            data = self._sock.recv(_BUFFER)
        except BlockingIOError:
            return False
        except OSError:
            return True  # some did not fit (ENOBUFS): not heard, but counted (`Counters`)
        self._hear_all(data)
        return True

    def _hear_all(self, data: bytes) -> None:
        for kind, _, body in messages(data):
            if kind == _LOG_PACKET:
                found = dict(attributes(body[GENERAL.size :]))
                prefix = found.get(_LOG_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
                self._hear(Logged(prefix, found.get(_LOG_PAYLOAD, b"")))


class Counters:
    """Takes the counts of a table (family ip) of one namespace."""

    def __init__(self, sock: socket.socket, table: str) -> None:
        self._sock = sock
        self._request = text(_OBJECT_TABLE, table)
        self._request += attribute(_OBJECT_TYPE, struct.pack("!I", _COUNTER))

    @classmethod
    async def open(cls, namespace: str, table: str) -> Counters:
        """Ready for a table that need not be there yet."""
        sock = await inside(namespace, open_socket)
        sock.settimeout(_ANSWER_SECONDS)  # the kernel answers at once
        return cls(sock, table)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def take(self) -> dict[str, int]:
        """Packets by counter since they were last taken.

        Raises:
            OSError: the kernel refuses.
        """
        self._sock.send(message(_TAKE_OBJECTS, _DUMP, 0, socket.AF_INET, 0, self._request))
        found: dict[str, int] = {}
        while True:
            for kind, _, body in messages(self._sock.recv(_BUFFER)):
                if kind == _DONE:
                    return found
                raise_error(kind, body)
                if kind == _NEW_OBJECT:
                    told = dict(attributes(body[GENERAL.size :]))
                    counts = dict(attributes(told[_OBJECT_DATA]))
                    name = told[_OBJECT_NAME].rstrip(b"\0").decode()
                    found[name] = int.from_bytes(counts[_COUNTER_PACKETS], "big")


class Tally:
    """Takes the packets that a set of addresses of the host (in a table of family inet) has counted."""

    def __init__(self, table: str, name: str) -> None:
        self._sock = open_socket()
        self._sock.settimeout(_ANSWER_SECONDS)  # the kernel answers at once
        self._where = text(_TABLE, table) + text(_SET, name)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def take(self) -> dict[IPv4Address, int]:
        """Packets by address since they were last taken, but those that come while they are.

        Raises:
            OSError: the kernel refuses, because there is no such set, for instance.
        """
        self._sock.send(message(_GET_ELEMENTS, _DUMP, 0, _INET, 0, self._where))
        found: dict[IPv4Address, int] = {}
        for kind, body in self._answers():
            if kind == _NEW_ELEMENT:
                found.update(_tallied(body))
        if found:
            elements = b"".join(nested(_LIST_ELEMENT, _key(one)) for one in found)
            body = self._where + nested(_ELEMENTS, elements)
            self._sock.send(
                message(_BATCH_BEGIN, 0, 0, 0, _NFTABLES)
                + message(_DELETE_ELEMENT, _ACK, 1, _INET, 0, body)
                + message(_BATCH_END, 0, 2, 0, _NFTABLES)
            )
            for _ in self._answers():
                pass
        return found

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """Type and body of what the kernel says, to its end."""
        while True:
            for kind, _, body in messages(self._sock.recv(_BUFFER)):
                raise_error(kind, body)
                if kind in (_DONE, ERROR):
                    return
                yield kind, body


class Changes:
    """Hears of changes of the host's ruleset, but of elements of sets where nothing hangs on them.

    That is in sets of a table in which they come and go, for what guests do, and in all of other tables.
    """

    def __init__(self, table: str, passing: Collection[str]) -> None:
        self._table = table.encode()
        self._passing = {name.encode() for name in passing}
        self._sock = open_socket(_CHANGES_GROUP)

    def close(self) -> None:
        """Hear no more."""
        self._sock.close()

    async def wait(self) -> None:
        """Until there is one."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self._sock, _BUFFER)
            except OSError:
                return  # more came than fits (ENOBUFS): something has changed
            if any(self._matters(kind, body) for kind, _, body in messages(data)):
                return

    def drain(self) -> None:
        """Forget what has come so far."""
        while True:
            try:
                self._sock.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError:
                continue  # more came than fits (ENOBUFS)

    def _matters(self, kind: int, body: bytes) -> bool:
        if kind == _NEW_GENERATION:
            return False  # the end of what was said before it
        if kind not in (_NEW_ELEMENT, _DELETE_ELEMENT):
            return True
        told = dict(attributes(body[GENERAL.size :]))
        table, name = (told.get(one, b"").rstrip(b"\0") for one in (_TABLE, _SET))
        return table == self._table and name not in self._passing


def _tallied(body: bytes) -> Iterator[tuple[IPv4Address, int]]:
    told = dict(attributes(body[GENERAL.size :]))
    for _, element in attributes(told.get(_ELEMENTS, b"")):
        parts = dict(attributes(element))
        data = dict(attributes(parts[_EXPRESSION]))[_EXPRESSION_DATA]
        count = dict(attributes(data))[_COUNTER_PACKETS]
        address = dict(attributes(parts[_KEY]))[_VALUE]
        yield IPv4Address(address), int.from_bytes(count, "big")


def _bind(sock: socket.socket, group: int) -> None:
    sock.setblocking(True)  # the kernel answers at once
    command = attribute(_CONFIG_COMMAND, struct.pack("!B", _BIND))
    mode = attribute(_CONFIG_MODE, struct.pack("!IBB", _COPIED, _COPY_PACKET, 0))
    at_once = attribute(_CONFIG_THRESHOLD, struct.pack("!I", 1))
    for sequence, body in enumerate((command, mode + at_once)):
        sock.send(message(_LOG_CONFIG, _ACK, sequence, socket.AF_UNSPEC, group, body))
        for kind, _, answer in messages(sock.recv(_BUFFER)):
            raise_error(kind, answer)
    sock.setblocking(False)


def _key(address: IPv4Address) -> bytes:
    return nested(_KEY, attribute(_VALUE, address.packed))
