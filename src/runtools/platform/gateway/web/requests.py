"""Requests as they come on one connection. What one says again of the one before is not taken apart anew.

Programs say the same of request after request but for the path, and so do most pages: then what was read of
the one before holds of this one, to the byte. Who may enter is asked for each one all the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.gateway.web import head, visitor
from runtools.platform.gateway.web.admission import Wish
from runtools.platform.gateway.web.head import RequestHead

if TYPE_CHECKING:
    from runtools.platform.gateway.web.house import House

_MOST_KEPT: Final = 4 << 10  # bytes of a head; each connection keeps one
# A target that is a path and nothing else, and one word to the parser too.
_PATH: Final = re.compile(rb"/[!\"$-~]*")


class Request:
    """One that was read.

    Attributes:
        own: the target as it came.
        wish: where it wants to, and with what; None: its host names no sandbox and port.
        peer: the address of who asks, by a trusted proxy too.
    """

    __slots__ = ("_behind", "head", "own", "peer", "wish")

    def __init__(self, read: RequestHead, own: bytes, wish: Wish | None, peer: str) -> None:
        self.head = read
        self.own = own
        self.wish = wish
        self.peer = peer
        self._behind = b""

    def inward(self, urls: DevUrls) -> bytes:
        """Its head as the server inside gets it."""
        asked, wish = self.head, self.wish
        assert wish is not None  # noqa: S101 - nobody else is let in
        if not self._behind:
            self._behind = visitor.behind_target(asked, wish.port, urls, self.peer)
        return b"%b %b %b" % (asked.method, asked.target, self._behind)


class Requests:
    """Reads those of one connection, each when the one before is over.

    Args:
        source: the address of who is connected.
    """

    def __init__(self, house: House, source: str) -> None:
        self._house = house
        self._source = source
        self._last: Request | None = None
        self._method = self._tail = b""  # of that, as they came
        self._host = ""  # the last one that was named
        self._place: tuple[str, int] | None = None  # what that is

    def read(self, said: bytes) -> Request:
        """The request that begins with this head.

        Raises:
            BadHead: it is none, or one that could be read in two ways.
        """
        method, _, rest = said.partition(b" ")
        target, _, tail = rest.partition(b" ")
        last = self._last
        if last is not None and self._tail == tail and self._method == method and _is_path(target):
            last.own = last.head.target = target
            return last
        self.forget()
        read = head.request(said)
        own = read.target
        peer = self._house.peer(self._source, read)
        request = Request(read, own, self._wish(read), peer)
        if len(said) <= _MOST_KEPT and own == target and _is_path(target):
            self._last, self._method, self._tail = request, method, tail
        return request

    def forget(self) -> None:
        """Keep nothing of the last one."""
        self._last, self._method, self._tail = None, b"", b""

    def _wish(self, read: RequestHead) -> Wish | None:
        urls = self._house.urls
        if read.host != self._host:
            self._host, self._place = read.host, urls.place(read.host)
        return None if self._place is None else Wish(*self._place, visitor.shown(read, urls))


def _is_path(target: bytes) -> bool:
    """Whether a target is one, without anything of ours in it."""
    return _PATH.fullmatch(target) is not None and visitor.PARAMETER not in target
