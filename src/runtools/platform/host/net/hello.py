"""Whom a connection says it is for, read from its first bytes: a TLS ClientHello or an HTTP request.

The bytes are a stranger's. What cannot be read beyond doubt is refused: two readers of the same bytes
(this one, and the server behind it) must not come to two names. Pure, standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtools.platform.core.egress import domain

MAX_BYTES = 65_536
"""The longest beginning that is waited for: a ClientHello in pieces, or the head of a request."""

HANDSHAKE = 0x16
_CHANGE, _ALERT = 0x14, 0x15
_CLIENT_HELLO, _SERVER_HELLO = 1, 2
_RECORD_HEAD = 5
_RECORD_LIMIT = 16_384
_SEALED_MORE = 2048  # by so much what is encrypted may be longer
_RECORDS = 64
# What stands in place of a random number in a server's wish for a second hello (RFC 8446, 4.1.3).
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_ANSWER_BYTES = 4096  # within so many a server's first message begins
_SERVER_NAME = 0
# Extensions that can hold a second, encrypted hello with another name: the standard's, and drafts' of it.
_ENCRYPTED = frozenset({*range(0xFE08, 0xFE0E), 0xFFCE})
_HOST_NAME = 0

_REQUEST = re.compile(rb"[A-Z]{3,20} (?P<target>[\x21-\x7e]+) HTTP/1\.[01]")
_HEADER = re.compile(
    rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[^\x00-\x08\x0a-\x1f]*)"
)
_ABSOLUTE = re.compile(rb"(?i:http)://(?P<host>[^/?#@]+)(?:[/?#].*)?")
_HEAD_END = b"\r\n\r\n"
_LINES = 256


class Unreadable(ValueError):
    """No hello and no request that can be read beyond doubt."""


class Encrypted(ValueError):
    """A hello that can hold another one, encrypted. Whether it does, or is filled with noise as

    browsers do, nobody can tell but the server.
    """

    def __init__(self, name: str | None) -> None:
        super().__init__("a ClientHello with another one inside, or with noise that looks like it")
        self.name = name


@dataclass(frozen=True, slots=True)
class Hello:
    """The beginning of a connection.

    Attributes:
        name: whom it is for; None where it does not say (an address, or nothing).
        first: the bytes to send on in place of those that were read.
        rest: what has come behind a ClientHello; None: it is a request of HTTP.
    """

    name: str | None
    first: bytes
    rest: bytes | None = None


def read(data: bytes) -> Hello | None:
    """What the beginning of a connection says; None while more of it is needed.

    Raises:
        Unreadable: it is neither TLS nor HTTP, or malformed, or longer than `MAX_BYTES`.
        Encrypted: the name that it shows need not be the one that it is for.
    """
    if not data:
        return None
    try:
        found = _tls(data) if data[0] == HANDSHAKE else _http(data)
    except IndexError:  # a length that points beyond what it lies in
        raise Unreadable("a ClientHello whose lengths do not fit") from None
    if found is None and len(data) >= MAX_BYTES:
        raise Unreadable(f"no name in the first {MAX_BYTES} bytes")
    return found


# --- TLS ---


class _Field:
    """Bytes that are read from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise IndexError
        self.at += size
        return self.data[self.at - size : self.at]

    def field(self, size: int) -> _Field:
        """A field that its length, a number of ``size`` bytes, stands before."""
        return _Field(self.take(self.number(size)))

    def is_over(self) -> bool:
        return self.at == len(self.data)


def record(data: bytes) -> bytes | None:
    """The first TLS record of some bytes; None while it is not all there.

    Raises:
        Unreadable: it is none.
    """
    if len(data) < _RECORD_HEAD:
        return None
    length = int.from_bytes(data[3:_RECORD_HEAD], "big")
    if data[1] != 3 or length > _RECORD_LIMIT + _SEALED_MORE:
        raise Unreadable("no TLS record")
    end = _RECORD_HEAD + length
    return data[:end] if len(data) >= end else None


def asks_again(data: bytes) -> bool | None:
    """Whether the beginning of a server's answer asks for a second hello; None: more of it is needed.

    A server that answers in no way that TLS knows has asked for none.
    """
    message, at = b"", 0
    while at + _RECORD_HEAD <= min(len(data), _ANSWER_BYTES):
        kind, length = data[at], int.from_bytes(data[at + 3 : at + _RECORD_HEAD], "big")
        if data[at + 1] != 3 or kind not in (HANDSHAKE, _ALERT, _CHANGE):
            return False
        at += _RECORD_HEAD
        if kind == HANDSHAKE:
            message += data[at : at + length]
        if message and message[0] != _SERVER_HELLO:
            return False
        if len(message) >= 6 + len(_RETRY):  # behind its kind, length and version
            return message[6 : 6 + len(_RETRY)] == _RETRY
        at += length
    return False if len(data) >= _ANSWER_BYTES else None


def _tls(data: bytes) -> Hello | None:
    found = _handshake(data)
    if found is None:
        return None
    message, end = found
    return Hello(_server_name(message), data[:end], data[end:])


def _handshake(data: bytes) -> tuple[bytes, int] | None:
    """The body of the first handshake message, put together from records, and where they end.

    None: not all there yet.
    """
    message, at = b"", 0
    for _ in range(_RECORDS):
        if len(data) < at + _RECORD_HEAD:
            return None
        kind, major, length = data[at], data[at + 1], int.from_bytes(data[at + 3 : at + 5], "big")
        if kind != HANDSHAKE or major != 3 or not 0 < length <= _RECORD_LIMIT:
            raise Unreadable("no TLS record of a handshake")
        at += _RECORD_HEAD
        message += data[at : at + length]
        if message and message[0] != _CLIENT_HELLO:
            raise Unreadable("a handshake that does not begin with a ClientHello")
        if len(message) >= 4:
            size = 4 + int.from_bytes(message[1:4], "big")
            if size > MAX_BYTES:
                raise Unreadable("a ClientHello without end")
            if len(message) > size:
                raise Unreadable("a ClientHello with something behind it in its record")
            if len(message) == size and len(data) >= at + length:
                return message[4:], at + length
        at += length
        if len(data) < at:
            return None
    raise Unreadable(f"a ClientHello in more than {_RECORDS} records")


def _server_name(message: bytes) -> str | None:
    hello = _Field(message)
    hello.take(2 + 32)  # version, random
    hello.field(1)  # session
    hello.field(2)  # cipher suites
    hello.field(1)  # compression
    if hello.is_over():
        return None
    extensions = hello.field(2)
    if not hello.is_over():
        raise Unreadable("a ClientHello with something behind it")
    names: list[str] = []
    encrypted = False
    while not extensions.is_over():
        kind, body = extensions.number(2), extensions.field(2)
        if kind == _SERVER_NAME:
            names.append(_host_name(body))
        encrypted |= kind in _ENCRYPTED
    if len(names) > 1:
        raise Unreadable("a ClientHello with several names")
    name = names[0] if names else None
    if encrypted:
        raise Encrypted(name)
    return name


def _host_name(body: _Field) -> str:
    entries = body.field(2)
    if entries.number(1) != _HOST_NAME:
        raise Unreadable("a server name of an unknown kind")
    text = entries.field(2).take(len(entries.data) - 3)
    if not entries.is_over() or not body.is_over():
        raise Unreadable("a ClientHello with several names")
    name = domain(text.decode("ascii", "replace"))
    if name is None:
        raise Unreadable("a server name that is no name")
    return name


# --- HTTP ---


def _http(data: bytes) -> Hello | None:
    """A request's head. Sent on with ``Connection: close``, so that no other request follows it."""
    end = data.find(_HEAD_END)
    if end < 0:
        if _REQUEST.fullmatch(data.split(b"\r\n", 1)[0]) is None and b"\r\n" in data:
            raise Unreadable("no HTTP request")
        if not data[:1].isalpha():
            raise Unreadable("neither TLS nor HTTP")
        return None
    if end > MAX_BYTES:
        raise Unreadable(f"no name in the first {MAX_BYTES} bytes")
    line, *lines = data[:end].split(b"\r\n")
    request = _REQUEST.fullmatch(line)
    if request is None or len(lines) > _LINES:
        raise Unreadable("no HTTP request")
    headers = [(match["name"].lower(), match["value"].strip()) for match in map(_header, lines)]
    name = _host(request["target"], headers)
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    upgrades = [value.lower() for key, value in headers if key == b"upgrade"]
    # Behind another protocol (h2c) requests for other names could follow.
    if upgrades not in ([], [b"websocket"]):
        raise Unreadable("a change to another protocol than websocket")
    kept.append(b"Connection: close, Upgrade" if upgrades else b"Connection: close")
    head = b"\r\n".join([line, *kept]) + _HEAD_END
    return Hello(name, head + data[end + len(_HEAD_END) :])


def _header(line: bytes) -> re.Match[bytes]:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise Unreadable("a malformed header")
    return match


def _host(target: bytes, headers: list[tuple[bytes, bytes]]) -> str | None:
    """The name in the Host header, with which the request's target must agree."""
    hosts = [value for key, value in headers if key == b"host"]
    if len(hosts) > 1:
        raise Unreadable("a request with several hosts")
    keys = [key for key, _ in headers]
    if keys.count(b"content-length") + keys.count(b"transfer-encoding") > 1:
        raise Unreadable("a request whose length can be read in two ways")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None and not target.startswith(b"/") and target != b"*":
        raise Unreadable("a request to a proxy")
    if absolute is not None and (not hosts or hosts[0].lower() != absolute["host"].lower()):
        raise Unreadable("a request with two hosts")
    if not hosts or not hosts[0]:
        return None
    text = hosts[0].decode("ascii", "replace")
    bare = re.sub(r":[0-9]{0,5}$", "", text)
    if re.fullmatch(r"[0-9.]+", bare):
        return None  # an address, which is judged as such
    name = domain(bare)
    if name is None:
        raise Unreadable("a Host that is no name")
    return name
