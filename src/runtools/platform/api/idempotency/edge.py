"""Repeats of mutating requests: the layer between the edge and the routes.

A request with an ``Idempotency-Key`` is remembered with the id of its act (`op`) before anything is
done: for a person, or for the org of a key. A repeat that finds an answer gets it. One that
finds none (the first was cut off by a crash, or goes on in another process) is done with the same `op`,
which every step further down answers from its own records instead of doing it again. Within one process
repeats wait for the first. Of twins in two processes the first answer stands, where it is kept in the
transaction of what it tells of (`Call.settle`): whoever comes to its own after that, or is refused, gives
that one. Elsewhere both tell of the same thing, each as it then is, and a secret that is shown once is in
one of them. Links to dev URLs and those that reset a password are made anew by a repeat, and the one before
opens nothing any more; a twin makes none.

Commands are the exception: their results may be large and secret, there are many of them, and the guest
keeps them by process id anyway. So for ``exec`` and ``processes`` nothing is written: the op is made from
key and request, and another request under the same key is noticed as long as this process remembers.

A person's keys are the person's own in whichever org, and the org and the rights are a part of the request:
a repeat after a switch, or by who may do something else by now, is refused and not done again. Not so where
somebody is about to change just those (`_OF_ONESELF`, and what is done to oneself as a member or an
operator): such a repeat is told what was done.

Only digests are kept: of the key, and of the request under the key, so that a password in a body cannot
be guessed from the database.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import OrderedDict

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtools.errors import (
    CapacityExhausted,
    IdempotencyMismatch,
    OutcomeUnknown,
    RunToolsError,
    SandboxPaused,
    WaitsForRoom,
)
from runtools.platform.api.calls import SCOPE, Call
from runtools.platform.api.idempotency import store
from runtools.platform.api.idempotency.store import Remembered
from runtools.platform.api.points import reach
from runtools.platform.kit import http
from runtools.platform.kit.crypto import digest, keyed_digest, same
from runtools.platform.kit.db import Transaction
from runtools.platform.kit.http import MUTATING

log = logging.getLogger(__name__)

MAX_KEPT_BYTES = 1_048_576
MAX_COMMANDS = 10_000

_COMMAND = re.compile(r"/v1/sandboxes/[^/]+/(?:exec|processes)(?:/.*)?")
_OF_ONESELF = re.compile(
    r"/v1/(?:sessions|me)(?:/.*)?|/v1/invitations/accept|/v1/org/leave|/v1/orgs/[^/]+/switch"
)
_TO_SOMEBODY = re.compile(r"/v1/(?:members|people)/([^/]+)")
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")


class TwinAnswered(Exception):
    """The same request was answered in another process: what this one was about to write is not written."""

    def __init__(self, known: Remembered) -> None:
        super().__init__("answered by another process")
        self.known = known


class Idempotency:
    """Wraps the routes; stands inside the edge, which has told who calls."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running: dict[tuple[str, str], asyncio.Event] = {}
        self._commands: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        key = None
        if scope["type"] == "http" and scope["method"] in MUTATING:
            key = http.header(scope, b"idempotency-key")
        call: Call | None = scope.get(SCOPE)
        if key is None or call is None or call.caller is None:
            await self._app(scope, receive, send)
            return
        if _KEY.fullmatch(key) is None:
            raise http.wrong_field("Idempotency-Key", "must be 1 to 255 printable characters")
        owner = call.caller.user_id or call.caller.org_id
        if owner is None:  # a part of the platform, which says by itself what it has said before
            await self._app(scope, receive, send)
            return
        place = (owner, digest(f"{owner} {key.decode()}"))
        while (first := self._running.get(place)) is not None:
            await first.wait()
        self._running[place] = asyncio.Event()
        request = _Repeatable(self._app, call, key.decode(), place)
        try:
            if scope["method"] in ("POST", "DELETE") and _COMMAND.fullmatch(scope["path"]):
                request.command(scope, self._commands.get(place))
                self._remember(place, request.request)
                await self._app(scope, receive, send)
            else:
                await request.serve(scope, receive, send)
        finally:
            self._running.pop(place).set()

    def _remember(self, place: tuple[str, str], request: str) -> None:
        self._commands[place] = request
        self._commands.move_to_end(place)
        if len(self._commands) > MAX_COMMANDS:
            self._commands.popitem(last=False)


class _Repeatable:
    """One request with a key."""

    def __init__(self, app: ASGIApp, call: Call, key: str, place: tuple[str, str]) -> None:
        self._app = app
        self._call = call
        self._key = key
        self._place = place
        self._stream = hashlib.sha256()
        self._is_kept = False
        self.request = ""

    def command(self, scope: Scope, before: str | None) -> None:
        """Name a command by its key and request; ``before`` is the one seen under the key."""
        self.request = self._digest(scope, self._call.body)
        if before is not None and before != self.request:
            raise _mismatch()
        self._call.given_op = f"opn_{self.request[:32]}"

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        streamed = scope["method"] == "PUT"
        request = self.request = self._digest(scope, self._call.body)
        known = await self._begin(request)
        if known.status is None:
            self._check(known, request)
            await self._go(scope, self._hashing(receive) if streamed else receive, send)
            return
        if streamed:
            await self._read_all(receive)
            request = self._digest(scope, self._stream.digest())
        self._check(known, request)
        await self._again(known)(scope, receive, send)

    async def _go(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._call
        if scope["method"] != "PUT":
            call.remember = self._answered
        try:
            await self._app(scope, receive, send)
        except TwinAnswered as twin:
            await self._again(twin.known)(scope, receive, send)
            return
        except RunToolsError as error:
            known = await self._refused(error)
            if known is None:
                raise
            await self._again(known)(scope, receive, send)
            return
        if call.data is None or len(call.data) > MAX_KEPT_BYTES:
            return  # a repeat goes through again, under the same op
        reach("api.idempotency.answered")
        if self._is_kept:
            return
        streamed = scope["method"] == "PUT"
        request = self._digest(scope, self._stream.digest() if streamed else call.body)
        await call.platform.db.write(self._keep, call.status, call.data, request)

    async def _refused(self, error: RunToolsError) -> Remembered | None:
        """The answer of its twin, where that did what this one was refused; else the key is free again."""
        call = self._call
        if call.stands or not _nothing_done(error):
            return None
        known = await call.platform.db.write(store.forget, *self._place, call.op)
        return known if known is not None and same(known.request_digest, self.request) else None

    def _answered(self, conn: Transaction, status: int | None, data: bytes) -> None:
        """Keep the answer in the transaction of what it tells of.

        Raises:
            TwinAnswered: it is told already, and to be done by nobody else.
        """
        known = self._keep(conn, status, data, self.request)
        if known is not None:
            self._call.did_nothing = True
            raise TwinAnswered(known)
        self._is_kept = status is not None

    def _keep(
        self, conn: Transaction, status: int | None, data: bytes, request: str
    ) -> Remembered | None:
        """Keep the answer, unless its twin has one; returns that."""
        call = self._call
        answered = Remembered(request, call.op, status, data.decode())
        now = call.platform.clock.now()
        known = store.answer(conn, *self._place, answered, now)
        if known is not None and known.op != call.op:
            log.warning(
                "%s was done, and its key was free by then: another request has it", call.op
            )
            return None
        return known

    def _again(self, known: Remembered) -> Response:
        return http.reply(
            self._call.request_id,
            (known.data or "null").encode(),
            status=known.status or 200,
            headers={"Idempotency-Replayed": "true"},
            trace=self._call.trace_id,
        )

    async def _begin(self, request: str) -> Remembered:
        call = self._call
        now = call.platform.clock.now()
        known = await call.platform.db.write(store.begin, *self._place, request, call.op, now)
        reach("api.idempotency.begun")
        call.given_op = known.op
        if known.status is None and known.data is not None:
            call.begun = known.data.encode()
        return known

    def _check(self, known: Remembered, request: str) -> None:
        if not same(known.request_digest, request):
            raise _mismatch()

    def _digest(self, scope: Scope, body: bytes) -> str:
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        method: str = scope["method"]
        asked = (method.encode(), path, scope["query_string"], body)
        return keyed_digest(self._key, self._asker(scope["path"]).encode(), *asked)

    def _asker(self, path: str) -> str:
        """Who asks: nobody is told what another, or who may do less by now, was told."""
        caller = self._call.who
        rights = sorted(caller.scopes)
        if caller.user_id is not None:
            to = _TO_SOMEBODY.fullmatch(path)
            if _OF_ONESELF.fullmatch(path):
                rights = [caller.id]  # some of these are about the session that asks
            elif to is not None and to[1] == caller.user_id:
                rights = []
            else:
                rights = [caller.org_id or "", *rights]
        return " ".join([caller.actor, *rights])

    def _hashing(self, receive: Receive) -> Receive:
        async def hashed() -> Message:
            message = await receive()
            self._stream.update(message.get("body", b""))
            return message

        return hashed

    async def _read_all(self, receive: Receive) -> None:
        hashed = self._hashing(receive)
        while True:
            message = await hashed()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if not message.get("more_body", False):
                return


def _mismatch() -> IdempotencyMismatch:
    return IdempotencyMismatch(
        "the idempotency key was used for another request, by somebody else, or with other rights or in "
        "another organisation than you have by now",
        hint="use a fresh key for every act, and the same one only to repeat it unchanged",
    )


def _nothing_done(error: RunToolsError) -> bool:
    """Whether the error says that the act was refused: then the key may be used afresh."""
    if isinstance(error, OutcomeUnknown | IdempotencyMismatch | SandboxPaused | WaitsForRoom):
        return False
    return error.status < 500 or isinstance(error, CapacityExhausted)
