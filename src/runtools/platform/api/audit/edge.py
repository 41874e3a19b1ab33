"""Writes the audit log: one line for each mutating request, by whom, to what and how it ended.

A line is in the database before its answer is sent; a route may write it itself, in the transaction of what
it does (`Call.is_audited`): so is a secret revealed. What goes on inside sandboxes (commands, files,
processes) is the exception: there are many such calls and every millisecond of theirs is felt, so their
lines are written together, within a quarter of a second; a crash of this process loses that much.

A repeat that gets the answer of its first has no line of its own: it did nothing. Nor has what is refused
to nobody in particular, apart from sign-ins: strangers do not fill the table.
"""

from __future__ import annotations

import logging
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtools.errors import NotFound, RateLimited, RunToolsError
from runtools.platform.api.audit import store
from runtools.platform.api.audit.lines import line_of
from runtools.platform.api.audit.store import Line
from runtools.platform.api.calls import SCOPE, Call
from runtools.platform.api.platform import Platform
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
        written = False

        async def send_written(message: Message) -> None:
            nonlocal written
            if message["type"] == "http.response.start" and not written:
                written = True
                await self._write(scope, int(message["status"]), None)
            await send(message)

        try:
            await self._app(scope, receive, send_written)
        except RunToolsError as error:
            if not written:
                await self._write(scope, error.status, error.code)
            raise
        except Exception:
            if not written:
                await self._write(scope, _FAILED, RunToolsError.code)
            raise

    async def _write(self, scope: Scope, status: int, error: str | None) -> None:
        call: Call = scope[SCOPE]
        if call.did_nothing or call.is_audited or _is_noise(call, status):
            return
        line = line_of(call, scope, status, error)
        if not _INSIDE.match(scope["path"]):
            await self._platform.db.write(store.add, [line])
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


def _is_noise(call: Call, status: int) -> bool:
    """Whether nobody known was refused something: anybody may cause as many of these as they like.

    A sign-in that failed is none, for those are slowed down. What a part of the platform does is told
    where it does it for an org.
    """
    if call.caller is not None and call.caller.kind == "part":
        return call.line_org is None
    if call.caller is not None or not _REFUSED <= status < _FAILED:
        return False
    return call.failed is None or status in (NotFound.status, RateLimited.status)
