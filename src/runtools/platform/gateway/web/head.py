"""Heads of requests and answers: taken apart strictly, judged, and put together anew.

llhttp (httptools) refuses what its grammar does not have: bare line feeds, folded lines, spaces before
colons, bad tokens, two lengths. What it lets pass and proxies have been fooled with is refused here. A head
is written anew from its parts, so that what the other side reads is what was judged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final

import httptools

MAX_HEAD: Final = 64 << 10
MAX_FIELDS: Final = 200
END: Final = b"\r\n\r\n"

Field = tuple[bytes, bytes]
Named = tuple[bytes, bytes, bytes]

_VERSIONS: Final = {"1.1": b"1.1", "1.0": b"1.0"}
_NONE: Final[frozenset[bytes]] = frozenset()
# What almost every `Connection` says.
_USUAL: Final = {word: frozenset({word}) for word in (b"keep-alive", b"close", b"upgrade")}


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
    """What requests and answers have in common.

    Attributes:
        fields: name as it came, value, and name in small letters.
        named: the values as they came, by their names in small letters.
        connection: the words of its ``Connection``, in small letters.
        length: bytes of the body; None: it is chunked; -1: as many as come.
    """

    fields: list[Named]
    named: dict[bytes, list[bytes]]
    version: bytes
    connection: Set[bytes]
    length: int | None

    def all(self, name: bytes) -> list[bytes]:
        """The values of the fields of a (lower-case) name."""
        return self.named.get(name, [])

    def one(self, name: bytes) -> bytes | None:
        """The value of the only field of a name; None: there is none, or there are several."""
        found = self.all(name)
        return found[0] if len(found) == 1 else None

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection is to stay open by what the head says."""
        if self.version == b"1.0":
            return b"keep-alive" in self.connection
        return b"close" not in self.connection


@dataclass(slots=True)
class RequestHead(Head):
    """A request's.

    Attributes:
        upgrades: it asks for another protocol on this connection.
    """

    method: bytes
    target: bytes
    host: str
    upgrades: bool

    @property
    def is_old(self) -> bool:
        """Whether who sends it knows neither chunks, nor answers before the answer, nor other protocols."""
        return self.version == b"1.0"


@dataclass(slots=True)
class AnswerHead(Head):
    """An answer's."""

    status: int
    reason: bytes


class _Parts:
    """What the parser calls."""

    __slots__ = ("fields", "is_whole", "named", "status", "url")

    def __init__(self) -> None:
        self.fields: list[Named] = []
        self.named: dict[bytes, list[bytes]] = {}
        self.url = b""
        self.status = b""
        self.is_whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_status(self, status: bytes) -> None:
        self.status += status

    def on_header(self, name: bytes, value: bytes) -> None:
        value, low = value.rstrip(b" \t"), name.lower()
        self.fields.append((name, value, low))
        if low in self.named:
            self.named[low].append(value)
        else:
            self.named[low] = [value]

    def on_headers_complete(self) -> None:
        self.is_whole = True

    def tokens(self, name: bytes) -> Set[bytes]:
        """The words of a list of tokens, in small letters."""
        found = self.named.get(name)
        if found is None:
            return _NONE
        text = b",".join(found).lower()
        return _USUAL.get(text) or {word.strip() for word in text.split(b",")} - {b""}

    def length(self, without: int) -> int | None:
        """The body's, by what these say."""
        if b"transfer-encoding" in self.named:
            return None
        said = self.named.get(b"content-length")
        return int(said[0]) if said else without


def request(data: bytes) -> RequestHead:
    """The head of a request, from its first byte to the empty line.

    Raises:
        BadHead: it is none, or one that could be read in two ways.
    """
    parts = _Parts()
    parser = httptools.HttpRequestParser(parts)
    _feed(parser, data, parts)
    method, named = parser.get_method(), parts.named
    version = _check(parts, parser.get_http_version())
    if method == b"CONNECT":
        raise BadHead("this is no proxy", 405)
    if not parts.url.startswith(b"/") and not (method == b"OPTIONS" and parts.url == b"*"):
        raise BadHead("the request names more than a path")
    hosts = named.get(b"host")
    if hosts is None or len(hosts) != 1:
        raise BadHead("a request needs one Host")
    connection = parts.tokens(b"connection")
    return RequestHead(
        parts.fields,
        named,
        version,
        connection,
        parts.length(0),
        method,
        parts.url,
        hosts[0].decode("latin-1"),
        version != b"1.0" and b"upgrade" in connection and b"upgrade" in named,
    )


def answer(data: bytes, method: bytes) -> AnswerHead:
    """The head of an answer to a request by that method.

    Raises:
        BadHead: it is none.
    """
    parts = _Parts()
    parser = httptools.HttpResponseParser(parts)
    _feed(parser, data, parts)
    version, status = _check(parts, parser.get_http_version()), parser.get_status_code()
    is_empty = method == b"HEAD" or status in (204, 304) or status < 200
    return AnswerHead(
        parts.fields,
        parts.named,
        version,
        parts.tokens(b"connection"),
        0 if is_empty else parts.length(-1),
        status,
        parts.status,
    )


def write(first: bytes, fields: Iterable[Field]) -> bytes:
    """A head."""
    return b"%b\r\n%b\r\n" % (first, b"".join([b"%b: %b\r\n" % pair for pair in fields]))


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


def _check(parts: _Parts, version: str) -> bytes:
    """The version; what must hold of both kinds."""
    known = _VERSIONS.get(version)
    if known is None:
        raise BadHead("only HTTP/1.1 and HTTP/1.0 are spoken", 505)
    if len(parts.fields) > MAX_FIELDS:
        raise BadHead(f"more than {MAX_FIELDS} header fields", 431)
    named = parts.named
    codings, lengths = named.get(b"transfer-encoding"), named.get(b"content-length")
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked" or lengths):
        raise BadHead("the end of the body could be read in two ways")
    if codings and known == b"1.0":
        raise BadHead("HTTP/1.0 has no transfer codings")
    if lengths and len(lengths) > 1:
        raise BadHead("two lengths")
    return known
