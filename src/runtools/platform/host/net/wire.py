"""The little of the DNS wire format that a forwarder must look at. Pure."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

HEADER: Final = struct.Struct(">HHHHHH")
MAX_UDP: Final = 4096
MAX_TCP: Final = 65_535

_RESPONSE = 0x8000
_OPCODE = 0x7800
_RECURSION_DESIRED = 0x0100
_RECURSION_AVAILABLE = 0x0080
_LABEL_LIMIT = 63
_NAME_LIMIT = 255
_TAIL = 4  # type and class after the name

NO_ERROR: Final = 0
SERVFAIL: Final = 2
REFUSED: Final = 5

A: Final = 1
AAAA: Final = 28
SVCB: Final = 64
HTTPS: Final = 65
ANY: Final = 255

_PLAIN_LABEL = re.compile(rb"[a-z0-9_-]+")
_RECORDS = 512


class BadMessage(ValueError):
    """What came is no question or answer that a forwarder handles."""


def question(message: bytes) -> bytes:
    """The question section of a query or an answer: one question, its name uncompressed.

    Raises:
        BadMessage: it has another form.
    """
    if len(message) < HEADER.size:
        raise BadMessage("shorter than a header")
    count = HEADER.unpack_from(message)[2]
    if count != 1:
        raise BadMessage(f"{count} questions")
    at = HEADER.size
    while True:
        if at >= len(message):
            raise BadMessage("a name that does not end")
        length = message[at]
        if length > _LABEL_LIMIT:
            raise BadMessage("a compressed or extended label in a question")
        at += 1 + length
        if at - HEADER.size > _NAME_LIMIT:
            raise BadMessage("a name that is too long")
        if length == 0:
            break
    if at + _TAIL > len(message):
        raise BadMessage("a question without type and class")
    return message[HEADER.size : at + _TAIL]


def is_query(message: bytes) -> bool:
    """Whether it is a plain query with one question."""
    try:
        question(message)
    except BadMessage:
        return False
    return not HEADER.unpack_from(message)[1] & (_RESPONSE | _OPCODE)


def with_id(message: bytes, ident: int) -> bytes:
    """The message under another id."""
    return struct.pack(">H", ident) + message[2:]


def ident(message: bytes) -> int:
    """The id of a message."""
    return int(HEADER.unpack_from(message)[0])


def answers(reply: bytes, query: bytes) -> bool:
    """Whether the reply belongs to the query that was sent: same id, same question."""
    try:
        same = question(reply).lower() == question(query).lower()
    except BadMessage:
        return False
    flags = HEADER.unpack_from(reply)[1]
    return same and ident(reply) == ident(query) and bool(flags & _RESPONSE)


def name(query: bytes) -> str | None:
    """The name that a valid query asks for, lower case; None for the root and for one with letters

    that no host has, dots inside a label among them.
    """
    labels, at = [], HEADER.size
    while length := query[at]:
        label = query[at + 1 : at + 1 + length].lower()
        if _PLAIN_LABEL.fullmatch(label) is None:
            return None
        labels.append(label.decode())
        at += 1 + length
    return ".".join(labels) or None


def kind(query: bytes) -> int:
    """The type that a valid query asks for."""
    return int.from_bytes(question(query)[-_TAIL : -_TAIL + 2], "big")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply leads to.

    Attributes:
        addresses: of its answer section.
        ttl: for how many seconds all of them hold; 0 where there are none.
        has_services: whether any section holds records that carry keys for encrypted hellos.
    """

    addresses: tuple[IPv4Address | IPv6Address, ...]
    ttl: int
    has_services: bool


def read(reply: bytes) -> Answer:
    """What is in a reply that belongs to its query (`answers`).

    Raises:
        BadMessage: it is malformed, or has more records than a sane one.
    """
    at = HEADER.size + len(question(reply))
    _, _, _, *counts = HEADER.unpack_from(reply)
    if sum(counts) > _RECORDS:
        raise BadMessage(f"{sum(counts)} records")
    addresses: list[IPv4Address | IPv6Address] = []
    ttls, has_services = [], False
    for n in range(sum(counts)):
        at = _past_name(reply, at)
        if at + 10 > len(reply):
            raise BadMessage("a record that is cut off")
        rtype, _, ttl, length = struct.unpack_from(">HHIH", reply, at)
        at += 10
        data = reply[at : at + length]
        at += length
        if len(data) != length:
            raise BadMessage("a record that is cut off")
        has_services |= rtype in (SVCB, HTTPS)
        if n < counts[0] and (address := _address(rtype, data)) is not None:
            addresses.append(address)
            ttls.append(min(ttl, 0x7FFF_FFFF))
    return Answer(tuple(addresses), min(ttls, default=0), has_services)


def _past_name(message: bytes, at: int) -> int:
    """Where what follows a name begins; where its last part is written elsewhere is of no interest."""
    for _ in range(_NAME_LIMIT):
        if at >= len(message):
            break
        length = message[at]
        if length == 0:
            return at + 1
        if length & 0xC0 == 0xC0:
            return at + 2
        if length > _LABEL_LIMIT:
            break
        at += 1 + length
    raise BadMessage("a name that does not end")


def _address(rtype: int, data: bytes) -> IPv4Address | IPv6Address | None:
    if rtype == A:
        if len(data) != 4:
            raise BadMessage("an address of another size")
        return IPv4Address(data)
    if rtype == AAAA:
        if len(data) != 16:
            raise BadMessage("an address of another size")
        return IPv6Address(data)
    return None


def failure(query: bytes, code: int) -> bytes:
    """An answer to a valid query that says only that there is none; `NO_ERROR`: nothing of that type."""
    asked = HEADER.unpack_from(query)[1] & _RECURSION_DESIRED
    flags = _RESPONSE | asked | _RECURSION_AVAILABLE | code
    return HEADER.pack(ident(query), flags, 1, 0, 0, 0) + question(query)
