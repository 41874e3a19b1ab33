"""A host that answers on a Unix socket: the `Host` port by HTTP.

Each method is one call of the table in `core/ports/host_wire.py`. A host that is not there or goes away
is `HostUnavailable`; an act that was begun goes on over there, and its repeat with the same op id
learns how it ended. A caller that is cancelled ends streams, never an act.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from runtools.errors import HostUnavailable, RunToolsError, from_wire
from runtools.platform.core.ports.host import (
    BuildOrder,
    Built,
    Child,
    CreateOrder,
    FileBody,
    Forked,
    Host,
    Kept,
    Observed,
    Stored,
)
from runtools.platform.core.ports.host_wire import CALLS, Call
from runtools.platform.core.ports.metrics import Family
from runtools.platform.kit.tracing import OFF, Tracing
from runtools.platform.kit.unix_http import Answer, Client, ConnectionLost
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.egress import Egress, EgressLog
from runtools.sdk.shapes.events import ErrorBody, HostView
from runtools.sdk.shapes.inside import (
    ExecRequest,
    ExecResult,
    FileChange,
    FileEntry,
    Listing,
    Stats,
    StatsHistory,
)
from runtools.sdk.shapes.processes import (
    Octets,
    OutputEnd,
    OutputPiece,
    Process,
    ProcessRequest,
    Stream,
    TerminalSize,
)
from runtools.sdk.shapes.sandboxes import DiskUse, Pruned
from runtools.sdk.shapes.templates import BuildLine

T = TypeVar("T")
ItemT = TypeVar("ItemT", bound=BaseModel)


class RemoteHost(Host):
    """The host part of the platform, seen from another process.

    Args:
        path: the socket that the host part listens on.
        tracing: whose spans the host's belong to.
    """

    def __init__(self, path: Path, tracing: Tracing = OFF) -> None:
        self._client = Client(path)
        self._tracing = tracing

    async def __aenter__(self) -> RemoteHost:
        """Nothing is opened before it is needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """End all connections; streams that still run raise `HostUnavailable`."""
        self._client.close()
        await asyncio.sleep(0)  # asyncio closes a socket in its next round

    async def view(self) -> HostView:
        return await self._value(HostView, "view")

    async def metrics(self) -> builtins.list[Family]:
        return await self._value(builtins.list, "metrics")

    def reports(self, epoch: int, seq: int) -> AsyncIterator[Observed]:
        return self._items(Observed, "reports", epoch, seq)

    async def create(self, order: CreateOrder) -> Observed:
        return await self._value(Observed, "create", order)

    async def known(self) -> builtins.list[Observed]:
        return await self._value(builtins.list, "known")

    async def order(self, sandbox_id: str) -> CreateOrder:
        return await self._value(CreateOrder, "order", sandbox_id)

    async def settled(self, sandbox_id: str, timeout_seconds: float) -> Observed:
        return await self._value(Observed, "settled", sandbox_id, timeout_seconds)

    async def pause(self, sandbox_id: str, op: str, actor: str) -> Observed:
        return await self._value(Observed, "pause", sandbox_id, op, actor)

    async def resume(
        self, sandbox_id: str, op: str, actor: str, room_seconds: float | None = None
    ) -> Observed:
        return await self._value(Observed, "resume", sandbox_id, op, actor, room_seconds)

    async def destroy(self, sandbox_id: str, op: str, actor: str) -> Observed:
        return await self._value(Observed, "destroy", sandbox_id, op, actor)

    async def snapshot(self, sandbox_id: str, op: str, actor: str, snapshot_id: str) -> Kept:
        return await self._value(Kept, "snapshot", sandbox_id, op, actor, snapshot_id)

    async def rollback(self, sandbox_id: str, op: str, actor: str, snapshot_id: str) -> Observed:
        return await self._value(Observed, "rollback", sandbox_id, op, actor, snapshot_id)

    async def fork(
        self, sandbox_id: str, op: str, actor: str, children: builtins.list[Child]
    ) -> Forked:
        return await self._value(Forked, "fork", sandbox_id, op, actor, children)

    async def drop_snapshot(self, snapshot_id: str) -> None:
        await self._value(type(None), "drop_snapshot", snapshot_id)

    # --- inside ---

    async def exec(self, sandbox_id: str, request: ExecRequest) -> ExecResult:
        return await self._value(ExecResult, "exec", sandbox_id, request)

    async def signal_exec(self, sandbox_id: str, process_id: str, op: str, signal: int) -> None:
        await self._value(type(None), "signal_exec", sandbox_id, process_id, op, signal)

    async def start_process(self, sandbox_id: str, request: ProcessRequest) -> Process:
        return await self._value(Process, "start_process", sandbox_id, request)

    async def list_processes(self, sandbox_id: str) -> builtins.list[Process]:
        return await self._value(builtins.list, "list_processes", sandbox_id)

    async def get_process(self, sandbox_id: str, process_id: str) -> Process:
        return await self._value(Process, "get_process", sandbox_id, process_id)

    async def wait_process(self, sandbox_id: str, process_id: str, timeout_ms: int) -> Process:
        return await self._value(Process, "wait_process", sandbox_id, process_id, timeout_ms)

    async def read_output(
        self,
        sandbox_id: str,
        process_id: str,
        stream: Stream,
        start: int,
        limit: int,
        history: str | None = None,
    ) -> OutputPiece:
        return await self._value(
            OutputPiece, "read_output", sandbox_id, process_id, stream, start, limit, history
        )

    async def follow_output(
        self,
        sandbox_id: str,
        process_id: str,
        stream: Stream,
        start: int,
        history: str | None = None,
    ) -> AsyncIterator[OutputPiece | OutputEnd]:
        items = self._items(Shape, "follow_output", sandbox_id, process_id, stream, start, history)
        async with contextlib.aclosing(items):
            async for item in items:
                assert isinstance(item, OutputPiece | OutputEnd)  # noqa: S101 - the table says so
                yield item

    async def send_input(self, sandbox_id: str, process_id: str, op: str, data: Octets) -> int:
        return await self._value(int, "send_input", sandbox_id, process_id, op, data)

    async def close_input(self, sandbox_id: str, process_id: str, op: str) -> Process:
        return await self._value(Process, "close_input", sandbox_id, process_id, op)

    async def signal_process(
        self, sandbox_id: str, process_id: str, op: str, signal: int
    ) -> Process:
        return await self._value(Process, "signal_process", sandbox_id, process_id, op, signal)

    async def end_process(self, sandbox_id: str, process_id: str) -> None:
        await self._value(type(None), "end_process", sandbox_id, process_id)

    async def resize_terminal(
        self, sandbox_id: str, process_id: str, op: str, size: TerminalSize
    ) -> Process:
        return await self._value(Process, "resize_terminal", sandbox_id, process_id, op, size)

    async def stats(self, sandbox_id: str) -> Stats:
        return await self._value(Stats, "stats", sandbox_id)

    async def set_egress(self, sandbox_id: str, generation: int, egress: Egress) -> None:
        await self._value(type(None), "set_egress", sandbox_id, generation, egress)

    async def set_limits(
        self, sandbox_id: str, idle_timeout_seconds: int, max_lifetime_seconds: int | None
    ) -> None:
        await self._value(
            type(None), "set_limits", sandbox_id, idle_timeout_seconds, max_lifetime_seconds
        )

    async def hand_over(self, sandbox_id: str, org_id: str) -> None:
        await self._value(type(None), "hand_over", sandbox_id, org_id)

    async def egress_log(self, sandbox_id: str) -> EgressLog:
        return await self._value(EgressLog, "egress_log", sandbox_id)

    async def stats_history(self, sandbox_id: str) -> StatsHistory:
        return await self._value(StatsHistory, "stats_history", sandbox_id)

    async def console(self, sandbox_id: str, lines: int) -> builtins.list[str]:
        return await self._value(builtins.list, "console", sandbox_id, lines)

    async def stat(self, sandbox_id: str, path: str) -> FileEntry:
        return await self._value(FileEntry, "stat", sandbox_id, path)

    async def list(self, sandbox_id: str, path: str, depth: int) -> Listing:
        return await self._value(Listing, "list", sandbox_id, path, depth)

    async def mkdir(self, sandbox_id: str, op: str, path: str, mode: int) -> FileEntry:
        return await self._value(FileEntry, "mkdir", sandbox_id, op, path, mode)

    async def move(
        self, sandbox_id: str, op: str, source: str, target: str, overwrite: bool
    ) -> FileEntry:
        return await self._value(FileEntry, "move", sandbox_id, op, source, target, overwrite)

    async def copy(
        self, sandbox_id: str, op: str, source: str, target: str, overwrite: bool
    ) -> FileEntry:
        return await self._value(FileEntry, "copy", sandbox_id, op, source, target, overwrite)

    async def edit(
        self, sandbox_id: str, op: str, path: str, old: str, new: str, occurrences: int
    ) -> FileEntry:
        return await self._value(FileEntry, "edit", sandbox_id, op, path, old, new, occurrences)

    async def chmod(self, sandbox_id: str, op: str, path: str, mode: int) -> FileEntry:
        return await self._value(FileEntry, "chmod", sandbox_id, op, path, mode)

    async def remove(self, sandbox_id: str, op: str, path: str, recursive: bool) -> None:
        await self._value(type(None), "remove", sandbox_id, op, path, recursive)

    async def read(
        self, sandbox_id: str, path: str, start: int, end: int | None
    ) -> tuple[FileBody, AsyncIterator[bytes]]:
        call = CALLS["read"]
        answer = await self._ask(call, (sandbox_id, path, start, end))
        line, rest = await _first_line(answer)
        return _parsed(FileBody, call, line), _Bytes(answer, rest)

    async def write(
        self,
        sandbox_id: str,
        op: str,
        path: str,
        chunks: AsyncIterator[bytes],
        mode: int | None,
        how: Literal["replace", "append"],
    ) -> FileEntry:
        return await self._value(FileEntry, "write", sandbox_id, op, path, mode, how, body=chunks)

    async def download(self, sandbox_id: str, path: str) -> AsyncIterator[bytes]:
        return _Bytes(await self._ask(CALLS["download"], (sandbox_id, path)))

    async def upload(
        self, sandbox_id: str, op: str, path: str, chunks: AsyncIterator[bytes]
    ) -> Listing:
        return await self._value(Listing, "upload", sandbox_id, op, path, body=chunks)

    def watch(
        self, sandbox_id: str, path: str, recursive: bool, after: int | None
    ) -> AsyncIterator[FileChange]:
        return self._items(FileChange, "watch", sandbox_id, path, recursive, after)

    # --- templates and space ---

    async def build(self, order: BuildOrder) -> Built:
        return await self._value(Built, "build", order)

    async def built(self, version_id: str) -> Built:
        return await self._value(Built, "built", version_id)

    def build_log(self, version_id: str, after: int) -> AsyncIterator[BuildLine]:
        return self._items(BuildLine, "build_log", version_id, after)

    async def drop_template(self, version_id: str) -> None:
        await self._value(type(None), "drop_template", version_id)

    async def disk_use(self) -> DiskUse:
        return await self._value(DiskUse, "disk_use")

    async def stored(self) -> builtins.list[Stored]:
        return await self._value(builtins.list, "stored")

    async def prune(self, ended: bool, warm: bool) -> Pruned:
        return await self._value(Pruned, "prune", ended, warm)

    # --- the wire ---

    async def _ask(
        self, call: Call, values: tuple[Any, ...], body: AsyncIterator[bytes] | None = None
    ) -> Answer:
        """Call; an answer that is an error is raised."""
        with _lost():
            packed, trace = call.pack(*values), self._tracing.here()
            answer = await self._client.post(call.path, packed, body, trace)
            if answer.status != 200:
                raise _refusal(await answer.whole())
            return answer

    async def _value(
        self, kind: type[T], name: str, *values: Any, body: AsyncIterator[bytes] | None = None
    ) -> T:
        call = CALLS[name]
        answer = await self._ask(call, values, body)
        with _lost():
            return _parsed(kind, call, await answer.whole())

    async def _items(
        self, kind: type[ItemT], name: str, *values: Any
    ) -> AsyncGenerator[ItemT, None]:
        call = CALLS[name]
        answer = await self._ask(call, values)
        try:
            with _lost():
                async for line in _lines(answer):
                    parsed = call.line.model_validate_json(line)
                    if parsed.error is not None:
                        raise _error(parsed.error)
                    yield _checked(kind, parsed.item)
        finally:
            answer.close()


class _Bytes:
    """A body that is passed on as it comes. Run it out or close it."""

    def __init__(self, answer: Answer, first: bytes = b"") -> None:
        self._answer = answer
        self._first = first

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        with _lost():
            return await self._answer.__anext__()

    async def aclose(self) -> None:
        self._answer.close()


def _parsed(kind: type[T], call: Call, data: bytes) -> T:
    try:
        value = call.result.validate_json(data)
    except ValidationError as exc:
        raise RunToolsError(f"the host's answer to {call.name} has not its form: {exc}") from exc
    return _checked(kind, value)


def _checked(kind: type[T], value: Any) -> T:
    assert isinstance(value, kind)  # noqa: S101 - method and table say the same
    return value


async def _first_line(answer: Answer) -> tuple[bytes, bytes]:
    held = b""
    with _lost():
        async for piece in answer:
            line, newline, rest = (held + piece).partition(b"\n")
            if newline:
                return line, rest
            held = line
    raise HostUnavailable("the host's answer ended before its first line")


async def _lines(answer: Answer) -> AsyncIterator[bytes]:
    held = b""
    async for piece in answer:
        *lines, held = (held + piece).split(b"\n")
        for line in lines:
            yield line


def _refusal(body: bytes) -> RunToolsError:
    try:
        return _error(ErrorBody.model_validate_json(body))
    except ValidationError:
        return RunToolsError(f"the host answered {body[:200]!r}")


def _error(body: ErrorBody) -> RunToolsError:
    return from_wire(body.model_dump(by_alias=True))


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except ConnectionLost as exc:
        raise HostUnavailable(
            f"the host part does not answer: {exc}",
            hint="runtools status shows whether it runs; repeat with the same idempotency key",
        ) from exc
