"""Writes the audit log: one line for each mutating request, by whom, to what and how it ended.

A line is written in the first transaction of what it tells of, so that nothing is changed without one,
whatever is killed when; how the request was answered is added before the answer is sent, or in the
transaction that keeps the answer for repeats (`Call.settle`). A line without an answer tells of a request
that got none. Who is let in by the request itself (by a link, a password) has the line written by the
route, in the transaction that does it (`Call.tell`): so is a secret revealed. What goes on inside sandboxes
(commands, files, processes) is the exception: there are many such calls and every millisecond of theirs is
felt, so their lines are written together, within a quarter of a second; a crash of this process loses that
much.

A repeat that gets the answer of its first has no line of its own: it did nothing. Nor has what is refused
to nobody in particular, apart from sign-ins: strangers do not fill the table.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtools.errors import NotFound, RateLimited, RunToolsError
from runtools.platform.api.audit import store
from runtools.platform.api.audit.lines import line_of
from runtools.platform.api.audit.store import Line
from runtools.platform.api.calls import OWN, SCOPE, Call
from runtools.platform.api.platform import Platform
from runtools.platform.api.points import reach
from runtools.platform.core.ids import new_id
from runtools.platform.kit.db import Transaction, along
from runtools.platform.kit.http import MUTATING

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
_REFUSED, _FAILED = 400, 500
_SIGNS_IN = "/signin/oidc/callback"
_INSIDE = re.compile(r"/v1/sandboxes/[^/]+/(exec|files|processes|desktop)(/|$)")


def acts(scope: Scope) -> bool:
    """Whether the request changes something: coming back from the identity provider does, by a GET."""
    return scope["method"] in MUTATING or scope["path"] == _SIGNS_IN


class Audit:
    """Wraps the routes; stands inside the layer that answers repeats."""

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app = app
        self._platform = platform
        self._waiting: list[Line] = []
        platform.last.append(self._flush)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not acts(scope):
            await self._app(scope, receive, send)
            return
        telling = _Telling(scope)

        async def send_written(message: Message) -> None:
            if message["type"] == "http.response.start" and not telling.over:
                await self._write(telling, int(message["status"]), None)
            await send(message)

        try:
            with along(telling.begin):
                await self._app(scope, receive, send_written)
        except ClientDisconnect:
            raise  # nobody was answered: that is what the line says
        except RunToolsError as error:
            await self._write(telling, error.status, error.code)
            raise
        except Exception:
            await self._write(telling, _FAILED, RunToolsError.code)
            raise

    async def _write(self, telling: _Telling, status: int, error: str | None) -> None:
        if telling.over:
            return
        telling.over = True
        reach("api.audit.unanswered")
        call = telling.call
        if call.did_nothing or _is_noise(call, status) or telling.is_told(status):
            return
        line = telling.line(status, error)
        if not telling.is_inside:
            await self._platform.db.write(store.finish, line)
            return
        self._waiting.append(line)
        if len(self._waiting) == 1:
            self._platform.spawn(self._flush_later(), "writing the audit log")

    async def _flush_later(self) -> None:
        # Cut short at shutdown, it leaves what waits to the last flush.
        await self._platform.clock.sleep(FLUSH_SECONDS)
        await self._flush()

    async def _flush(self) -> None:
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        try:
            await self._platform.db.write(store.add, lines)
        except Exception:  # noqa: BLE001 - whatever it was, each line is tried alone, and logged if lost
            # One line that cannot be written takes no other org's with it.
            await self._one_by_one(lines)

    async def _one_by_one(self, lines: list[Line]) -> None:
        for line in lines:
            try:
                await self._platform.db.write(store.add, [line])
            except Exception:
                # Whatever is wrong with one line, the others are still to be written.
                log.exception(
                    "an audit line is lost: %s of request %s", line.action, line.request_id
                )


class _Telling:
    """The line of one request, from the first change that it makes to its answer."""

    def __init__(self, scope: Scope) -> None:
        self.call: Call = scope[SCOPE]
        self.is_inside = _INSIDE.match(scope["path"]) is not None
        self.over = False
        self._scope = scope
        self._id = new_id("aud")
        self._telling: tuple[Transaction, int] | None = None
        self._told: int | None = None
        self._begun = False
        self.call.teller = self.tell

    def line(self, status: int | None, error: str | None = None) -> Line:
        """The line as it is by now."""
        return replace(line_of(self.call, self._scope, status, error), id=self._id)

    def begin(self, conn: Transaction) -> Callable[[], None] | None:
        """Write the line with the first change, in its transaction; how it is answered is not known yet.

        Returns what notes that it is written, or that it was told whole, once that is committed.
        """
        if self._telling is not None and self._telling[0] is conn:
            return self._note_told
        known = self.call.caller is not None and not _is_noise(self.call, None)
        is_due = not (self.over or self.is_inside or self.call.did_nothing)
        if not known or not is_due or self._begun or self._told is not None:
            return None
        store.begin(conn, self.line(None))
        return self._note

    def _note(self) -> None:
        self._begun = True

    def _note_told(self) -> None:
        assert self._telling is not None  # noqa: S101 - this is what has asked for it
        self._told = self._telling[1]

    def tell(self, conn: Transaction, status: int, orgs: Sequence[str]) -> None:
        """Write the whole line, in the transaction of what it tells of; a copy for each other org."""
        if self.call.did_nothing or _is_noise(self.call, status):
            return
        line = self.line(status)
        store.finish(conn, line)
        copies = [replace(line, id=new_id("aud"), org_id=one) for one in orgs if one != line.org_id]
        if copies:
            store.add(conn, copies)
        self._telling = (conn, status)

    def is_told(self, status: int) -> bool:
        """Whether the line is in the database with that answer: an answer comes after what it tells of."""
        return self._told == status


def _is_noise(call: Call, status: int | None) -> bool:
    """Whether nobody known was refused something: anybody may cause as many of these as they like.

    A sign-in that failed is none, for those are slowed down. What a part of the platform does is told
    where it does it for an org.
    """
    if call.caller is not None and call.caller.kind == "part":
        return call.line_org == OWN
    if call.caller is not None or status is None or not _REFUSED <= status < _FAILED:
        return False
    return call.failed is None or status in (NotFound.status, RateLimited.status)
