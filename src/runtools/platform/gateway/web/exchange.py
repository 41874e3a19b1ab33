"""A request that has gone on to its server, and what of its body and of its answer has gone where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.gateway.web import framing, visitor
from runtools.platform.gateway.web.admission import lasting
from runtools.platform.gateway.web.head import AnswerHead, Field, RequestHead
from runtools.platform.gateway.web.pace import Inflow
from runtools.platform.gateway.web.way import Way

_FINAL = 200  # answers below say that there is one to come
_IN_CHUNKS: Final[Field] = (b"Transfer-Encoding", b"chunked")
_OF_CHUNKS: Final = frozenset({b"transfer-encoding", b"trailer"})


class Exchange:
    """One request and its answer.

    Attributes:
        wish: by what its visitor stays.
        upstream: where it went.
        wakes: what is sent there wakes the sandbox; else see `Rousing`.
        more: fields for its answer.
        begun: its answer has.
        chunks: its answer, which has no length, is packed into chunks.
        is_endless: its answer is over with the connection, and with nothing else.
        keeps: another request may come behind it.
    """

    __slots__ = (
        "_awaits_leave",
        "_body",
        "_head",
        "_inflow",
        "begun",
        "chunks",
        "is_endless",
        "keeps",
        "more",
        "upstream",
        "wakes",
        "wish",
    )

    def __init__(self, head: RequestHead, found: Way, now: float) -> None:
        self._head = head
        self.more = found.more
        self.upstream = found.upstream
        self.wish = lasting(found.wish, found.verdict)
        self.wakes = found.verdict.wakes
        self.begun = self.keeps = self.chunks = self.is_endless = False
        self._body = framing.of(head.length)
        self._inflow = None if self._body.done else Inflow(now)
        self._awaits_leave = b"expect" in head.named  # it sends the body when it is told to

    @property
    def is_whole(self) -> bool:
        """Whether all of the request has come."""
        return self._body.done

    @property
    def is_clean(self) -> bool:
        """Whether the server has read no more and no less than the request.

        A server may answer without having read the body, and read it as the next request, whose answer
        would be the next visitor's: only where there was none is the connection anybody's again.
        """
        return self._head.length == 0

    def take(self, data: bytes) -> bytes:
        """Hand on what belongs to the body; returns what does not.

        Raises:
            BadBody: it does not end where anybody could say.
        """
        if not data or self._body.done:
            return data
        goes, rest = self._body.take(data)
        if self._inflow is not None:
            self._inflow.came += len(data) - len(rest)
        if goes:
            self.upstream.transport.write(goes)
        return rest

    def drips(self, now: float) -> bool:
        """Whether it is for the visitor that little of the body comes."""
        inflow = self._inflow
        if inflow is None:
            return False
        awaits_leave = self._awaits_leave and not inflow.came
        is_held_up = self._body.done or self.upstream.is_slow or awaits_leave
        return inflow.drips(now, excused=is_held_up)

    def told(self, answer: AnswerHead, urls: DevUrls, *, is_last: bool) -> bytes:
        """The head of an answer as the visitor gets it; empty: it is an interim one that it does not know.

        Args:
            is_last: no other request will be read from the visitor.
        """
        self._awaits_leave = False
        is_old = self._head.is_old
        if is_old:
            if answer.status < _FINAL:
                return b""
            fields = [field for field in answer.fields if field[2] not in _OF_CHUNKS]
            answer = replace(answer, fields=fields)
        more: Sequence[Field] = ()
        if answer.status >= _FINAL:
            self.begun = True
            self.chunks = answer.length == -1 and not is_old
            self.is_endless = is_old and answer.length in (None, -1)
            self.keeps = self._head.keeps_alive and not self.is_endless and not is_last
            more = self.more
            if self.chunks:
                answer = replace(answer, version=b"1.1")
                more = [*more, _IN_CHUNKS]
            if not self.keeps:
                more = [*more, (b"Connection", b"close")]
            elif b"1.0" in (self._head.version, answer.version):
                more = [*more, (b"Connection", b"keep-alive")]
        return visitor.outward(answer, self.wish.sandbox_id, self.wish.port, urls, more)
