"""``/v1/sandboxes/{ref}/…``: commands, stats, console and files of one sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Annotated, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from runtools.errors import (
    CapacityExhausted,
    Conflict,
    DeadlineExceeded,
    DiskFull,
    EditUnfit,
    FileAlreadyExists,
    FileForbidden,
    FileIsDirectory,
    FileMissing,
    FileNotDirectory,
    GuestMisbehaved,
    GuestUnreachable,
    HistoryChanged,
    HostUnavailable,
    IdempotencyMismatch,
    InvalidPath,
    NotFound,
    OutcomeUnknown,
    ProcessEnded,
    QuotaExceeded,
    RateLimited,
    SandboxPaused,
    SandboxStopped,
    TooLarge,
    Unavailable,
    VersionMismatch,
    WaitsForRoom,
)
from runtools.platform.api import document
from runtools.platform.api.calls import NULL, Call, call_of
from runtools.platform.api.sandboxes import egress, inside, rules
from runtools.platform.api.sandboxes.load import load
from runtools.platform.kit import http, sse
from runtools.platform.kit.http import Stream, one
from runtools.sdk.shapes.egress import Egress, EgressChange, EgressLog
from runtools.sdk.shapes.events import Envelope
from runtools.sdk.shapes.inside import (
    ChmodRequest,
    EditRequest,
    ExecRequest,
    ExecResult,
    FileChange,
    FileEntry,
    Listing,
    MkdirRequest,
    MoveRequest,
    Stats,
    StatsHistory,
)
from runtools.sdk.shapes.processes import SignalRequest

router = APIRouter(prefix="/v1/sandboxes/{ref}", tags=["inside"])

_OCTETS = "application/octet-stream"
_TAR = "application/x-tar"
_ENTER = (
    *(NotFound, SandboxStopped, SandboxPaused, HistoryChanged),
    *(QuotaExceeded, CapacityExhausted, WaitsForRoom),
    *(HostUnavailable, GuestUnreachable, GuestMisbehaved, DeadlineExceeded),
)
_LOOK = (*_ENTER, InvalidPath, FileMissing, FileForbidden, FileNotDirectory)
_CHANGE = (*_LOOK, FileAlreadyExists, FileIsDirectory, DiskFull, IdempotencyMismatch)

Path = Annotated[str, Query(description="absolute, without ..")]
Offset = Annotated[int, Query(ge=0, le=2**62)]


@router.post(
    "/exec",
    **document.route(
        Envelope[ExecResult],
        *_ENTER,
        InvalidPath,
        FileMissing,
        FileForbidden,
        FileNotDirectory,
        TooLarge,
        IdempotencyMismatch,
        OutcomeUnknown,
        ProcessEnded,
        takes=ExecRequest,
    ),
)
async def exec_(request: Request, ref: str) -> Response:
    """Run a command to its end. Wakes a paused sandbox, waits for one still creating."""
    call = call_of(request)
    result = await inside.exec_(call, ref, call.take(ExecRequest))
    return call.answer(one(result), keep=False)


@router.post(
    "/exec/{process_id}/signal",
    **document.route(
        Envelope[None], *_ENTER, ProcessEnded, IdempotencyMismatch, takes=SignalRequest
    ),
)
async def signal_exec(request: Request, ref: str, process_id: str) -> Response:
    """Send a signal to a command that runs and all that it started; default TERM. Its exec says how it
    ended. One that has not come to the sandbox yet is never begun.
    """
    call = call_of(request)
    await inside.signal_exec(call, ref, process_id, call.take(SignalRequest).signal)
    return call.answer(NULL, keep=False)


@router.get("/stats", **document.route(Envelope[Stats], *_ENTER))
async def stats(request: Request, ref: str) -> Response:
    """What the machine says of itself; a paused sandbox is not woken and shows its last ones."""
    call = call_of(request)
    host, record = await inside.beside(call, ref)
    return call.answer(one(await host.stats(record.id)))


@router.get("/stats/history", **document.route(Envelope[StatsHistory], NotFound, HostUnavailable))
async def stats_history(request: Request, ref: str) -> Response:
    """What it took in the last hour, a point every ten seconds; wakes nothing, asks no guest."""
    call = call_of(request)
    host, record = await inside.beside(call, ref)
    return call.answer(one(await host.stats_history(record.id)))


@router.get("/egress", **document.route(Envelope[Egress], NotFound))
async def get_egress(request: Request, ref: str) -> Response:
    """What it may reach."""
    call = call_of(request)
    record = await load(call.platform, call.org, ref)
    return call.answer(one(egress.of(record)))


@router.patch(
    "/egress",
    **document.route(
        Envelope[Egress],
        *(NotFound, SandboxStopped, Conflict, IdempotencyMismatch, DeadlineExceeded),
        *(Unavailable, HostUnavailable),
        takes=EgressChange,
    ),
)
async def change_egress(request: Request, ref: str) -> Response:
    """Change what it may reach. Answers when that is in force and what it does not admit is cut."""
    call = call_of(request)
    return call.answer(one(await egress.change(call, ref, call.take(EgressChange))))


@router.get("/egress/log", **document.route(Envelope[EgressLog], NotFound, HostUnavailable))
async def egress_log(request: Request, ref: str) -> Response:
    """What it wanted to reach and was not let, the latest first; after its end too."""
    call = call_of(request)
    host, record = await inside.beside(call, ref)
    return call.answer(one(await host.egress_log(record.id)))


@router.get("/console", **document.route(Envelope[list[str]], NotFound, HostUnavailable))
async def console(
    request: Request, ref: str, lines: Annotated[int, Query(ge=1, le=10_000)] = 100
) -> Response:
    """The last lines of the machine's console, after its end too."""
    call = call_of(request)
    host, record = await inside.beside(call, ref)
    return call.answer(http.texts(await host.console(record.id, lines)))


# --- files ---


@router.get(
    "/files",
    **document.route(
        None,
        *_LOOK,
        FileIsDirectory,
        streams=_OCTETS,
        headers={"X-File-Size": "bytes of the whole file"},
    ),
)
async def read(
    request: Request,
    ref: str,
    path: Path,
    start: Offset = 0,
    end: Annotated[int | None, Query(ge=0, le=2**62, description="exclusive")] = None,
) -> Response:
    """A file's bytes, or a range of them. `X-File-Size` says how large the whole file is."""
    call = call_of(request)
    rules.check_path(_exact(request, path))
    rules.check_range(start, end)
    host, sandbox_id = await inside.enter(call, ref)
    body, chunks = await host.read(sandbox_id, path, start, end)
    headers = {
        "Content-Length": str(body.end - body.start),
        "X-File-Size": str(body.entry.size),
        "X-Content-Type-Options": "nosniff",
    }
    return Stream(chunks, media_type=_OCTETS, headers=headers)


@router.put("/files", **document.route(Envelope[FileEntry], *_CHANGE, body=_OCTETS))
async def write(
    request: Request,
    ref: str,
    path: Path,
    mode: Annotated[str | None, Query(description="octal, e.g. 644")] = None,
    append: bool = False,
) -> Response:
    """Write a file: replaced as a whole, or appended to. Parents are made."""
    call = call_of(request)
    rules.check_path(_exact(request, path))
    bits = rules.octal_mode(mode)
    host, sandbox_id = await inside.enter(call, ref)
    how: Literal["replace", "append"] = "append" if append else "replace"
    entry = await host.write(sandbox_id, call.op, path, _chunks(request), bits, how)
    return call.answer(one(entry))


@router.delete("/files", **document.route(Envelope[None], *_CHANGE))
async def remove(request: Request, ref: str, path: Path, recursive: bool = False) -> Response:
    """Remove a file, or with `recursive` a folder and all below it."""
    call = call_of(request)
    rules.check_path(_exact(request, path))
    host, sandbox_id = await inside.enter(call, ref)
    await host.remove(sandbox_id, call.op, path, recursive)
    return call.answer(NULL)


@router.get("/files/stat", **document.route(Envelope[FileEntry], *_LOOK))
async def stat(request: Request, ref: str, path: Path) -> Response:
    """One entry of the file system; a link is not followed."""
    call = call_of(request)
    rules.check_path(_exact(request, path))
    host, sandbox_id = await inside.enter(call, ref)
    return call.answer(one(await host.stat(sandbox_id, path)))


@router.get("/files/list", **document.route(Envelope[Listing], *_LOOK))
async def list_(
    request: Request, ref: str, path: Path, depth: Annotated[int, Query(ge=1, le=64)] = 1
) -> Response:
    """What lies below a folder, sorted by path; `truncated` says when there is more."""
    call = call_of(request)
    rules.check_path(_exact(request, path))
    host, sandbox_id = await inside.enter(call, ref)
    return call.answer(one(await host.list(sandbox_id, path, depth)))


@router.get(
    "/files/watch",
    **document.route(None, *_LOOK, TooLarge, RateLimited, streams="text/event-stream"),
)
async def watch(
    request: Request,
    ref: str,
    path: Path,
    recursive: bool = True,
    after: Annotated[int | None, Query(ge=0, le=2**62, description="go on after this id")] = None,
) -> Response:
    """What changes below a folder, as it happens: events `change` with a FileChange, `armed` first.

    Without `after` it begins now, and wakes a paused sandbox for that; with it, it goes on after that
    change and wakes nothing. Either way it lives through pauses and keeps nothing awake.
    """
    call = call_of(request)
    rules.check_path(_exact(request, path))
    start = sse.resume_point(request.scope, after)
    enter = inside.enter if start is None else inside.look_in
    host, sandbox_id = await enter(call, ref)
    changes = await http.primed(host.watch(sandbox_id, path, recursive, start))
    return sse.EventStream(_told(call, changes))


@router.post("/files/mkdir", **document.route(Envelope[FileEntry], *_CHANGE, takes=MkdirRequest))
async def mkdir(request: Request, ref: str) -> Response:
    """Make a folder, parents included."""
    call = call_of(request)
    wanted = call.take(MkdirRequest)
    rules.check_path(wanted.path)
    host, sandbox_id = await inside.enter(call, ref)
    return call.answer(one(await host.mkdir(sandbox_id, call.op, wanted.path, wanted.mode)))


@router.post("/files/move", **document.route(Envelope[FileEntry], *_CHANGE, takes=MoveRequest))
async def move(request: Request, ref: str) -> Response:
    """Move or rename."""
    call = call_of(request)
    wanted = _both(call.take(MoveRequest))
    host, sandbox_id = await inside.enter(call, ref)
    entry = await host.move(sandbox_id, call.op, wanted.source, wanted.target, wanted.overwrite)
    return call.answer(one(entry))


@router.post("/files/copy", **document.route(Envelope[FileEntry], *_CHANGE, takes=MoveRequest))
async def copy(request: Request, ref: str) -> Response:
    """Copy a file, or a folder with all below it."""
    call = call_of(request)
    wanted = _both(call.take(MoveRequest))
    host, sandbox_id = await inside.enter(call, ref)
    entry = await host.copy(sandbox_id, call.op, wanted.source, wanted.target, wanted.overwrite)
    return call.answer(one(entry))


@router.post(
    "/files/edit",
    **document.route(
        Envelope[FileEntry], *_CHANGE, EditUnfit, TooLarge, VersionMismatch, takes=EditRequest
    ),
)
async def edit(request: Request, ref: str) -> Response:
    """Replace an exact text in a file, as one act; refused where it does not stand there so often."""
    call = call_of(request)
    wanted = call.take(EditRequest)
    rules.check_path(wanted.path)
    host, sandbox_id = await inside.enter(call, ref)
    entry = await host.edit(
        sandbox_id, call.op, wanted.path, wanted.old, wanted.new, wanted.occurrences
    )
    return call.answer(one(entry))


@router.post("/files/chmod", **document.route(Envelope[FileEntry], *_CHANGE, takes=ChmodRequest))
async def chmod(request: Request, ref: str) -> Response:
    """Change permission bits."""
    call = call_of(request)
    wanted = call.take(ChmodRequest)
    rules.check_path(wanted.path)
    host, sandbox_id = await inside.enter(call, ref)
    return call.answer(one(await host.chmod(sandbox_id, call.op, wanted.path, wanted.mode)))


@router.get("/files/archive", **document.route(None, *_LOOK, streams=_TAR))
async def download(request: Request, ref: str, path: Path) -> Response:
    """A file or folder as a tar stream, names relative to its parent."""
    call = call_of(request)
    rules.check_path(_exact(request, path))
    host, sandbox_id = await inside.enter(call, ref)
    chunks = await http.primed(await host.download(sandbox_id, path))
    return Stream(chunks, media_type=_TAR)


@router.put("/files/archive", **document.route(Envelope[Listing], *_CHANGE, body=_TAR))
async def upload(request: Request, ref: str, path: Path) -> Response:
    """Unpack a tar stream below a folder."""
    call = call_of(request)
    rules.check_path(_exact(request, path))
    host, sandbox_id = await inside.enter(call, ref)
    return call.answer(one(await host.upload(sandbox_id, call.op, path, _chunks(request))))


async def _told(call: Call, changes: AsyncIterator[FileChange]) -> AsyncGenerator[sse.Event, None]:
    """The changes as events, until the key is revoked, or sandbox or folder end: asking again says why."""
    async with aclosing(call.platform.door.while_good(call.who, changes)) as good:
        with suppress(SandboxStopped, FileMissing):
            async for change in good:
                yield sse.Event("change", one(change), change.id)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes; what is not read is not fetched from the caller."""
    async for chunk in request.stream():
        if chunk:
            yield chunk


def _both(wanted: MoveRequest) -> MoveRequest:
    rules.check_path(wanted.source, field="source")
    rules.check_path(wanted.target, field="target")
    return wanted


def _exact(request: Request, path: str) -> str:
    """The path, if it was UTF-8: else the framework has put other characters in place of some."""
    if "\ufffd" in path:
        try:
            parse_qsl(request.scope["query_string"].decode("ascii"), errors="strict")
        except UnicodeDecodeError:
            raise InvalidPath("path: is not UTF-8", hint="percent-encode UTF-8 bytes") from None
    return path
