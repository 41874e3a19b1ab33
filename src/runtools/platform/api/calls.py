"""One request: who calls, its id, its body, and how it is answered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, TypeVarTuple

from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import Response

from runtools.errors import Forbidden, RunToolsError
from runtools.platform.api import guard
from runtools.platform.api.platform import Platform
from runtools.platform.core.access import Caller
from runtools.platform.core.ids import new_id
from runtools.platform.kit import http
from runtools.platform.kit.db import Transaction

SCOPE = "runtools.call"
NULL = b"null"
OWN = ""  # the org of who calls

# Records that have an id are shown with it at the front.
_ID = re.compile(rb'\{"id":"([^"\\]{1,80})"')


class Record(Protocol):
    """Whatever has an id."""

    @property
    def id(self) -> str:
        """It."""
        ...


ModelT = TypeVar("ModelT", bound=BaseModel)
RecordT = TypeVar("RecordT", bound=Record)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(slots=True)
class Call:
    """A request on its way through the api.

    Attributes:
        op: names the act for repeats, down to the guest; made from the idempotency key if one was
            sent.
        body: the JSON body, read already; streams are read by the route.
        source: the address that it came from.
        headers: what every answer to it bears.
        trace_id: the trace that it belongs to, where there are traces.
        subject: what was made or changed, once it is known: by default the id in the answer.
        line_org: the org whose audit log has its line, where that is not the caller's; None: no org's,
            whoever calls.
        entering: the id of the person who is let in by the request itself.
        failed: the code of an error that a page tells of.
        did_nothing: there is nothing for the audit log to tell.
        stands: what was asked for is done or begun, whatever its caller is told of it.
        open_for: whose open requests it is counted among.
        teller: writes its line of the audit log, in the transaction of what it did; see `tell`.
        remember: keeps an answer for repeats, in the transaction of what it tells of; see `settle`.
        begun: what an earlier go of the same request has noted; see `note`.
        data, status: the answer, for a repeat. None where a repeat has to go through again (its
            outcome is kept further down, under the same ``op``).
    """

    platform: Platform
    request_id: str
    caller: Caller | None = None
    body: bytes = b""
    given_op: str | None = None
    source: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    subject: str | None = None
    line_org: str | None = OWN
    entering: str | None = None
    trace_id: str | None = None
    did_nothing: bool = False
    stands: bool = False
    open_for: str | None = None
    failed: str | None = None
    teller: Callable[[Transaction, int, Sequence[str]], None] | None = None
    remember: Callable[[Transaction, int | None, bytes], None] | None = None
    begun: bytes | None = None
    data: bytes | None = None
    status: int = 0

    @property
    def op(self) -> str:
        """The act's id."""
        if self.given_op is None:
            self.given_op = new_id("opn")
        return self.given_op

    @property
    def who(self) -> Caller:
        """Who calls."""
        assert self.caller is not None  # noqa: S101 - the edge lets nobody else through
        return self.caller

    @property
    def org(self) -> str:
        """The caller's org.

        Raises:
            Forbidden: a person who is in none.
        """
        if self.who.org_id is None:
            raise Forbidden(
                "you are a member of no organisation, or not of this one any more",
                hint="`runtools org list` shows yours; an invitation lets you into another",
            )
        return self.who.org_id

    @property
    def person(self) -> str:
        """The id of the user who calls; the guard lets nobody else use routes of people."""
        assert self.who.user_id is not None  # noqa: S101 - see guard
        return self.who.user_id

    @property
    def actor(self) -> str:
        """Who is written into ledgers."""
        return self.who.actor

    def take(self, model: type[ModelT]) -> ModelT:
        """The body as that shape."""
        return http.parse(model, self.body)

    def settle(
        self, conn: Transaction, data: bytes, status: int = 200, orgs: Sequence[str] = ()
    ) -> None:
        """Keep the answer for repeats, and tell the audit log, in the transaction of what both tell of.

        Where a repeat done anew would undo what others have done since: no crash comes between the two.

        Args:
            orgs: as for `tell`.
        """
        if self.remember is not None:
            self.remember(conn, status, data)
        self._name(data)
        if self.teller is not None:
            self.teller(conn, status, orgs)

    async def begin(self) -> None:
        """Have the call in the audit log before a host does what no record of ours tells of."""
        await self.platform.db.write(lambda _: None)

    def tell(self, conn: Transaction, status: int, orgs: Sequence[str] = ()) -> None:
        """Write the whole line of the audit log in the transaction of what it tells of.

        Args:
            orgs: other orgs whose log has a line of it, too.
        """
        if self.teller is None:
            raise AssertionError("what is told of here is asked for by requests alone")
        self.teller(conn, status, orgs)

    def note(self, conn: Transaction, data: bytes) -> None:
        """Keep the answer-to-be in the transaction that begins what a host is yet to take up.

        A repeat goes through again, finds it in `begun`, and sees to the rest alone.
        """
        if self.remember is not None:
            self.remember(conn, None, data)

    async def settled(
        self, look: Callable[[T], bytes], act: Callable[[Transaction, *Ts], T], *args: *Ts
    ) -> T:
        """Do something in a transaction of its own, in which its answer is kept, too; see `settle`.

        Args:
            look: how what it returns looks in the answer.
        """

        def done(conn: Transaction) -> T:
            made = act(conn, *args)
            self.settle(conn, look(made))
            return made

        return await self.platform.db.write(done)

    async def made(self, act: Callable[[Transaction, *Ts], RecordT], *args: *Ts) -> RecordT:
        """Make a record in a transaction of its own, whose line in the audit log names it."""

        def done(conn: Transaction) -> RecordT:
            record = act(conn, *args)
            self.subject = record.id
            return record

        return await self.platform.db.write(done)

    async def once(
        self,
        known: Callable[[Transaction, str, str], T | None],
        make: Callable[[], Awaitable[T]],
    ) -> T:
        """What the act has made: by an earlier go, by its twin in another process at this moment, or now.

        Args:
            known: finds what an act of an org has made.
        """
        if self.given_op is None:
            return await make()
        there = await self.platform.db.read(known, self.org, self.op)
        if there:
            return there
        try:
            return await make()
        except RunToolsError:
            # Its twin may be what it was refused for: the name, the place or the last of a quota is taken.
            there = await self.platform.db.read(known, self.org, self.op)
            if not there:
                raise
            self.subject = None
            return there

    def answer(self, data: bytes, status: int = 200, *, keep: bool = True) -> Response:
        """Success. ``keep`` false: a repeat goes through again instead of getting these bytes."""
        self.data, self.status = (data if keep else None), status
        self._name(data)
        return http.reply(self.request_id, data, status=status, trace=self.trace_id)

    def _name(self, data: bytes) -> None:
        """What was made or changed is what the answer shows, unless it is known already."""
        if self.subject is None and (shown := _ID.match(data)) is not None:
            self.subject = shown[1].decode()

    def page(self, items: Sequence[bytes], next_cursor: str | None) -> Response:
        """A page of a list."""
        data = b"[%b]" % b",".join(items)
        return http.reply(
            self.request_id, data, paged=True, next_cursor=next_cursor, trace=self.trace_id
        )


def behalf(platform: Platform, org_id: str, actor: str, op: str) -> Call:
    """A call that the platform makes by itself, for somebody who has been let through before."""
    caller = Caller("key", actor, "", org_id, frozenset())
    return Call(platform, op, caller=caller, given_op=op)


def call_of(request: HTTPConnection) -> Call:
    """The call that the edge has made of this request, if its caller may use the route.

    Raises:
        Forbidden: it may not.
    """
    call: Call = request.scope[SCOPE]
    route = request.scope.get("route")
    if route is not None and call.caller is not None:
        guard.check(call.caller, route, request.path_params)
    return call
