"""The edge of the api, before any route: request id, key, bounded body, and errors as answers.

Plain ASGI. Bodies are read here, all but those of ``PUT``, which are streams of files.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtools.errors import NotFound, RunToolsError, Unauthenticated
from runtools.platform.api import guard
from runtools.platform.api.audit.edge import acts
from runtools.platform.api.callers import sent
from runtools.platform.api.calls import SCOPE, Call
from runtools.platform.api.platform import Platform
from runtools.platform.core.access import Caller
from runtools.platform.kit import http, rates
from runtools.platform.kit.outbound import networks

log = logging.getLogger(__name__)

_OPEN = frozenset(
    # `/metrics` has a token of its own, which its route asks for.
    {"/healthz", "/readyz", "/openapi.json", "/metrics", "/v1/logins", "/v1/logins/finish"}
)
_BEGINS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
# What it keeps until the browser comes back from the identity provider anybody may have it keep.
_BEGINS_SIGN_IN = "/signin/oidc"
_SANDBOX = re.compile(r"/v1/sandboxes/[^/]+")
_ACT = re.compile(r"/v1/sandboxes(?:/[^/]+/(?:pause|resume|fork|recover|rollback|snapshots))?")
_WITH_BODY = frozenset({"POST", "PATCH", "DELETE"})
# They send all of a chat each time, with its pictures.
_FRONT_ENDS = frozenset({"/v1/run/ai-sdk", "/v1/run/ag-ui"})
MAX_CHAT_BYTES = 32 * 1024 * 1024
_LESS = (
    "what was said before is known here: let the front end send the last message alone "
    "(useChat: prepareSendMessagesRequest)"
)


class Edge:
    """Wraps the routes of a platform."""

    def __init__(self, app: ASGIApp, platform: Platform, pages: frozenset[str]) -> None:
        self._app = app
        self._platform = platform
        settings = platform.settings
        self._orgs = rates.Buckets(platform.clock, settings.rate_limit)
        self._sources = rates.Buckets(platform.clock, settings.rate_limit_failed)
        self._open = rates.Open(settings.limit_open_requests)
        self._pages = pages
        self._proxies = networks(settings.trusted_proxies, "trusted_proxies")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        call = Call(self._platform, http.request_id(scope), source=http.peer(scope, self._proxies))
        scope[SCOPE] = call
        told = call.headers
        told.append((b"x-request-id", call.request_id.encode()))
        begun, status = False, 0

        async def send_named(message: Message) -> None:
            nonlocal begun, status
            if message["type"] in _BEGINS:
                message = {**message, "headers": [*message["headers"], *told]}
                begun, status = True, message.get("status", 0)
            await send(message)

        clock = self._platform.clock
        began = clock.monotonic()
        serve = self._serve if scope["type"] == "http" else self._serve_socket
        try:
            await serve(call, scope, receive, send_named)
        except ClientDisconnect:
            return
        except RunToolsError as error:
            if begun:
                raise
            await http.failure(error, call.request_id, call.trace_id)(scope, receive, send_named)
        except Exception:
            # The last edge: whatever it was, the caller gets an answer and the log the reason.
            what = scope.get("method", "WebSocket")
            log.exception("%s failed: %s %s", _named(call), what, scope["path"])
            if begun:
                raise
            unknown = RunToolsError(
                "the platform failed to handle the request", hint="its log has the details"
            )
            await http.failure(unknown, call.request_id, call.trace_id)(scope, receive, send_named)
        finally:
            if call.open_for is not None:
                self._open.leave(call.open_for)
            if scope["type"] == "http":
                spent = clock.monotonic() - began
                self._platform.meters.request(scope["method"], _route(scope), status, spent)

    async def _serve(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        _check_text(scope)
        if scope["path"] in self._pages:
            call.caller = await self._visitor(call, scope)
        elif scope["path"] not in _OPEN:
            await self._admit(call, scope, self._platform.door.admit(self._secret(scope)))
        if call.caller is None and (acts(scope) or scope["path"] == _BEGINS_SIGN_IN):
            self._count(call, "requests without a key")
        if scope["method"] in _WITH_BODY:
            bound = (MAX_CHAT_BYTES, _LESS) if scope["path"] in _FRONT_ENDS else ()
            call.body = await http.read_body(scope, receive, *bound)
            receive = http.replay(call.body, receive)
        parent = http.header(scope, b"traceparent")
        if self._platform.tracing.is_on and (parent is not None or _is_act(scope)):
            await self._traced(call, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _traced(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as a span of a trace: the caller's, where it is in one."""
        given = http.header(scope, b"traceparent")
        parent = None if given is None else given.decode("latin-1")
        about = {"http.request.method": scope["method"], "runtools.request.id": call.request_id}

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.note(http__response__status_code=message["status"])
            await send(message)

        tracing = self._platform.tracing
        with tracing.span(scope["method"], parent=parent, serves=True, attributes=about) as span:
            call.trace_id = span.trace_id
            try:
                await self._app(scope, receive, send_noted)
            except RunToolsError as error:
                span.note(http__response__status_code=error.status)
                raise
            finally:
                if (route := _route(scope)) is not None:
                    span.rename(f"{scope['method']} {route}")
                    span.note(http__route=route)
                span.note(runtools__subject=call.subject)

    async def _serve_socket(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """A refusal before it is accepted is an ordinary answer: the server speaks HTTP until then."""
        _check_text(scope)
        await self._admit(call, scope, self._platform.tickets.admit(scope, sent.secret(scope)))
        await self._app(scope, receive, send)

    async def _admit(self, call: Call, scope: Scope, admitted: Awaitable[Caller]) -> None:
        """Let a caller in, unless its org asks too often; a stream is counted once.

        Who has a good key is never held up by those who try others from the same address.
        """
        try:
            call.caller = await admitted
        except Unauthenticated:
            self._count(call, "tries without a good key")
            raise
        guard.check_place(call.caller, scope["path"])
        if call.caller.kind != "part":  # which works for every org
            self._enter(call, call.caller)

    def _enter(self, call: Call, caller: Caller) -> None:
        """Count a request among those of the caller's org, or refuse it."""
        whose = caller.org_id or caller.id
        standing, wait = self._orgs.take(whose)
        if standing is not None:
            call.headers += standing.headers()
        if wait:
            raise rates.too_many("requests of the org", wait)
        self._open.enter(whose)
        call.open_for = whose

    def _count(self, call: Call, what: str) -> None:
        """Count something that nobody known asks, or refuse it."""
        _, wait = self._sources.take(rates.source(call.source))
        if wait:
            raise rates.too_many(what, wait) from None

    def _secret(self, scope: Scope) -> str | None:
        """What a program sent; else a browser's session, which changes things from pages of ours alone."""
        given = sent.secret(scope)
        if given is not None or (session := sent.session(scope)) is None:
            return given
        if scope["method"] in http.MUTATING:
            sent.check_own(scope, self._platform.settings.public_url)
        return session

    async def _visitor(self, call: Call, scope: Scope) -> Caller | None:
        """Who is signed in at a page, if anybody is. Forms come from pages of ours alone."""
        if scope["method"] in http.MUTATING:
            sent.check_own(scope, self._platform.settings.public_url)
        session = sent.session(scope)
        if session is None:
            return None
        try:
            caller = await self._platform.door.admit(session)
        except Unauthenticated:
            self._count(call, "tries without a good session")
            return None
        self._enter(call, caller)
        return caller


def _check_text(scope: Scope) -> None:
    """No name has a zero byte, and PostgreSQL keeps none. Paths of files are their routes' matter."""
    if "\0" in scope["path"]:
        raise NotFound("nothing is called by a name with a zero byte", hint="leave the %00 out")
    for name, value in parse_qsl(scope["query_string"].decode("latin-1")):
        if "\0" in name or ("\0" in value and name != "path"):
            raise http.wrong_field(name[:80], "has a zero byte (%00)")


def _is_act(scope: Scope) -> bool:
    """Whether it asks for an act on a sandbox's life, which is traced in any case."""
    if scope["method"] == "DELETE":
        return _SANDBOX.fullmatch(scope["path"]) is not None
    return scope["method"] == "POST" and _ACT.fullmatch(scope["path"]) is not None


def _route(scope: Scope) -> str | None:
    """The pattern of the route that serves a request; None where there is none."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path


def _named(call: Call) -> str:
    return call.request_id if call.trace_id is None else f"{call.request_id} ({call.trace_id})"
