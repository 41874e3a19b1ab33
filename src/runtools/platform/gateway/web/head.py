"""Heads of requests and answers: taken apart strictly, judged, and put together anew.

llhttp (httptools) refuses what its grammar does not have: bare line feeds, folded lines, spaces before
colons, bad tokens, two lengths. What it lets pass and proxies have been fooled with is refused here. A head
is written anew from its parts, so that what the other side reads is what was judged here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import httptools

MAX_HEAD: Final = 64 << 10
MAX_FIELDS: Final = 200
END: Final = b"\r\n\r\n"

Field = tuple[bytes, bytes]


class BadHead(Exception):
    """It is no head that we pass on.

    Attributes:
        status: what it is answered with.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Head:
    """What requests and answers have in common. Names of fields are as they came.

    Attributes:
        named: the values as they came, by their names in small letters.
    """

    fields: list[Field]
    named: dict[bytes, list[bytes]]
    version: bytes

    def all(self, name: bytes) -> list[bytes]:
        """The values of the fields of a (lower-case) name."""
        return self.named.get(name, [])

    def one(self, name: bytes) -> bytes | None:
        """The value of the only field of a name; None: there is none, or there are several."""
        found = self.all(name)
        return found[0] if len(found) == 1 else None

    def tokens(self, name: bytes) -> set[bytes]:
        """The words of a list of tokens, in small letters."""
        if name not in self.named:
            return set()
        words = b",".join(self.all(name)).lower().split(b",")
        return {word.strip() for word in words} - {b""}

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection is to stay open by what the head says."""
        said = self.tokens(b"connection")
        if self.version == b"1.0":
            return b"keep-alive" in said
        return b"close" not in said


@dataclass(slots=True)
class RequestHead(Head):
    """A request's."""

    method: bytes
    target: bytes
    host: str

    @property
    def upgrades(self) -> bool:
        """Whether it asks for another protocol on this connection."""
        return b"upgrade" in self.tokens(b"connection") and bool(self.all(b"upgrade"))

    @property
    def length(self) -> int | None:
        """Bytes of the body; None: it is chunked."""
        return _length(self, 0)


@dataclass(slots=True)
class AnswerHead(Head):
    """An answer's."""

    status: int
    reason: bytes
    method: bytes  # of the request

    @property
    def length(self) -> int | None:
        """Bytes of the body; None: it is chunked; -1: as many as come."""
        if self.method == b"HEAD" or self.status in (204, 304) or self.status < 200:
            return 0
        return _length(self, -1)


def _length(head: Head, without: int) -> int | None:
    if head.all(b"transfer-encoding"):
        return None
    said = head.all(b"content-length")
    return int(said[0]) if said else without


class _Parts:
    """What the parser calls."""

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.named: dict[bytes, list[bytes]] = {}
        self.url = b""
        self.status = b""
        self.is_whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_status(self, status: bytes) -> None:
        self.status += status

    def on_header(self, name: bytes, value: bytes) -> None:
        value = value.rstrip(b" \t")
        self.fields.append((name, value))
        self.named.setdefault(name.lower(), []).append(value)

    def on_headers_complete(self) -> None:
        self.is_whole = True


def request(data: bytes) -> RequestHead:
    """The head of a request, from its first byte to the empty line.

    Raises:
        BadHead: it is none, or one that could be read in two ways.
    """
    parts = _Parts()
    parser = httptools.HttpRequestParser(parts)
    _feed(parser, data, parts)
    method, version = parser.get_method(), parser.get_http_version().encode()
    _check(parts, version)
    if method == b"CONNECT":
        raise BadHead("this is no proxy", 405)
    if not parts.url.startswith(b"/") and not (method == b"OPTIONS" and parts.url == b"*"):
        raise BadHead("the request names more than a path")
    hosts = parts.named.get(b"host", [])
    if len(hosts) != 1:
        raise BadHead("a request needs one Host")
    host = hosts[0].decode("latin-1")
    head = RequestHead(parts.fields, parts.named, version, method, parts.url, host)
    if version == b"1.0" and head.all(b"transfer-encoding"):
        raise BadHead("HTTP/1.0 has no transfer codings")
    return head


def answer(data: bytes, method: bytes) -> AnswerHead:
    """The head of an answer to a request by that method.

    Raises:
        BadHead: it is none.
    """
    parts = _Parts()
    parser = httptools.HttpResponseParser(parts)
    _feed(parser, data, parts)
    version = parser.get_http_version().encode()
    _check(parts, version)
    return AnswerHead(
        parts.fields, parts.named, version, parser.get_status_code(), parts.status, method
    )


def write(first: bytes, fields: Iterable[Field]) -> bytes:
    """A head."""
    return b"%b\r\n%b\r\n" % (first, b"".join(b"%b: %b\r\n" % pair for pair in fields))


def _feed(
    parser: httptools.HttpRequestParser | httptools.HttpResponseParser, data: bytes, parts: _Parts
) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # it says so of every request that asks for one
    except httptools.HttpParserError as exc:
        raise BadHead(str(exc)) from None
    if not parts.is_whole:
        raise BadHead("the head is not whole")


def _check(parts: _Parts, version: bytes) -> None:
    if version not in (b"1.1", b"1.0"):
        raise BadHead("only HTTP/1.1 and HTTP/1.0 are spoken", 505)
    if len(parts.fields) > MAX_FIELDS:
        raise BadHead(f"more than {MAX_FIELDS} header fields", 431)
    codings = parts.named.get(b"transfer-encoding", [])
    lengths = parts.named.get(b"content-length", [])
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked" or lengths):
        raise BadHead("the end of the body could be read in two ways")
    if len(lengths) > 1:
        raise BadHead("two lengths")
