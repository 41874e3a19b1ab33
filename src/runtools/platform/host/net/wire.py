"""The little of the DNS wire format that a forwarder must look at. Pure."""

from __future__ import annotations

import struct
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

SERVFAIL: Final = 2
REFUSED: Final = 5


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


def failure(query: bytes, code: int) -> bytes:
    """An answer to a valid query that says only that there is none."""
    asked = HEADER.unpack_from(query)[1] & _RECURSION_DESIRED
    flags = _RESPONSE | asked | _RECURSION_AVAILABLE | code
    return HEADER.pack(ident(query), flags, 1, 0, 0, 0) + question(query)
