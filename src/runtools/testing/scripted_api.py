"""An API with no platform behind it: to test clients against, failures on order included.

It speaks HTTP on loopback, keeps a few sandboxes in memory, runs their commands as local processes
and keeps their files in a folder. A repeat under the same idempotency key gets the first answer.
What a test orders in ``failures`` happens to the next requests, one each.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import tarfile
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtools.errors import FileMissing, NotFound
from runtools.sdk import shapes
from runtools.testing.scripted_door import KEY, Door, Failure, Seen, reply
from runtools.testing.threaded import threaded

__all__ = ["KEY", "Failure", "ScriptedApi", "Seen"]

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@dataclass
class ScriptedApi:
    """See the module. ``folder`` is where the files of all sandboxes lie; ``port`` 0: any."""

    folder: Path
    door: Door = field(default_factory=Door)
    sandboxes: dict[str, shapes.Sandbox] = field(default_factory=dict)
    streams: dict[str, list[bytes]] = field(default_factory=dict)
    kept: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    waits: int = 0
    url: str = ""
    port: int = 0

    @property
    def failures(self) -> deque[Failure]:
        """What befalls the next requests, one each."""
        return self.door.failures

    @property
    def seen(self) -> list[Seen]:
        """The requests that came."""
        return self.door.seen

    def __enter__(self) -> ScriptedApi:
        app = self.door.before(Starlette(routes=self._routes()))
        self._serving = threaded(app, self.port)
        self.url = self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.__exit__(None, None, None)

    def reset(self, folder: Path) -> None:
        """Forget everything; files lie in this folder from now on."""
        self.folder, self.waits = folder, 0
        for held in (self.failures, self.seen, self.door.answers):
            held.clear()
        for kept in (self.sandboxes, self.streams, self.kept, self.fixed):
            kept.clear()

    def add(self, **fields: Any) -> shapes.Sandbox:
        """A sandbox that is there."""
        number = len(self.sandboxes)
        view = shapes.Sandbox.model_validate(_BLANK | {"id": f"sandbox-{number:012d}"} | fields)
        self.sandboxes[view.id] = view
        return view

    def find(self, ref: str) -> shapes.Sandbox:
        for view in self.sandboxes.values():
            if ref in (view.id, view.name):
                return view
        raise NotFound(f"no sandbox {ref!r}", hint="runtools sandbox list shows yours")

    def _routes(self) -> list[Route]:
        box = "/v1/sandboxes/{ref}"
        return [
            Route("/v1/sandboxes", self._create, methods=["POST"]),
            Route("/v1/sandboxes", self._list),
            Route(box, self._get),
            Route(box, self._destroy, methods=["DELETE"]),
            Route(f"{box}/exec", self._exec, methods=["POST"]),
            Route(f"{box}/fork", self._fork, methods=["POST"]),
            Route(f"{box}/files", self._read),
            Route(f"{box}/files", self._write, methods=["PUT"]),
            Route(f"{box}/files/stat", self._stat),
            Route(f"{box}/files/mkdir", self._mkdir, methods=["POST"]),
            Route(f"{box}/files/archive", self._archive),
            Route(f"{box}/files/archive", self._unarchive, methods=["PUT"]),
            Route(f"{box}/{{act}}", self._act, methods=["POST"]),
            Route("/{rest:path}", self._scripted, methods=["GET", "POST", "DELETE"]),
        ]

    async def _create(self, request: Request) -> Response:
        given = json.loads(await request.body())
        wanted = shapes.SandboxCreate.model_validate(given)
        known = {k: v for k, v in wanted if k in _BLANK and v is not None}
        known = {k: v for k, v in known.items() if k not in ("template", "queue")}
        queued = {"state": "creating", "operation": "queued"} if self.waits else {}
        made = self.add(**known, **queued, env_names=sorted(wanted.env))
        return reply(made, 201)

    async def _list(self, request: Request) -> Response:
        views = list(self.sandboxes.values())
        if state := request.query_params.get("state"):
            views = [view for view in views if view.state == state]
        start, limit = (
            int(request.query_params.get(k, d)) for k, d in (("cursor", 0), ("limit", 50))
        )
        end = start + min(limit, 2)  # small pages, so that tests see several
        return reply(views[start:end], cursor=str(end) if end < len(views) else None)

    async def _get(self, request: Request) -> Response:
        view = self.find(request.path_params["ref"])
        if "waitSeconds" in request.query_params and self.waits:
            self.waits -= 1
            if not self.waits:
                view = self._change(view, state="running", operation=None)
        return reply(view)

    def _change(self, view: shapes.Sandbox, **fields: Any) -> shapes.Sandbox:
        changed = view.model_copy(update=fields)
        self.sandboxes[view.id] = changed
        return changed

    async def _act(self, request: Request) -> Response:
        view = self.find(request.path_params["ref"])
        states = {"pause": "paused", "resume": "running", "rollback": view.state}
        act = request.path_params["act"]
        if act not in states:
            return await self._scripted(request)
        return reply(self._change(view, state=states[act]))

    async def _destroy(self, request: Request) -> Response:
        return reply(self._change(self.find(request.path_params["ref"]), state="stopped"))

    async def _fork(self, request: Request) -> Response:
        view = self.find(request.path_params["ref"])
        given = shapes.SandboxFork.model_validate(json.loads(await request.body()))
        fields = view.model_dump(exclude={"id", "name"}, by_alias=False) | {"parent_id": view.id}
        stem = given.name
        names = [
            stem if given.count == 1 else stem and f"{stem}-{n + 1}" for n in range(given.count)
        ]
        children = [self.add(**fields, name=name) for name in names]
        return reply(shapes.Fork(children=children, standstill_ms=12.5), 201)

    async def _exec(self, request: Request) -> Response:
        self.find(request.path_params["ref"])
        wanted = shapes.ExecRequest.model_validate(json.loads(await request.body()))
        return reply(await asyncio.to_thread(_run, wanted, self.folder))

    def _place(self, request: Request) -> Path:
        self.find(request.path_params["ref"])
        return self.folder / request.query_params["path"].lstrip("/")

    async def _read(self, request: Request) -> Response:
        place = self._place(request)
        if not place.exists():
            raise FileMissing(f"{request.query_params['path']}: no such file or directory")
        data = await asyncio.to_thread(place.read_bytes)
        end = request.query_params.get("end")
        part = data[int(request.query_params.get("start", 0)) : None if end is None else int(end)]
        return Response(part, headers={"X-File-Size": str(len(data))})

    async def _write(self, request: Request) -> Response:
        place = self._place(request)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab" if request.query_params.get("append") else "wb") as file:
            async for chunk in request.stream():
                file.write(chunk)
        if mode := request.query_params.get("mode"):
            place.chmod(int(mode, 8))
        return reply(_entry(place, request.query_params["path"]))

    async def _stat(self, request: Request) -> Response:
        place = self._place(request)
        if not place.exists():
            raise FileMissing(f"{request.query_params['path']}: no such file or directory")
        return reply(_entry(place, request.query_params["path"]))

    async def _mkdir(self, request: Request) -> Response:
        path = json.loads(await request.body())["path"]
        place = self.folder / path.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        return reply(_entry(place, path))

    async def _archive(self, request: Request) -> Response:
        if f"archive:{request.query_params['path']}" in self.fixed:
            return Response(self.fixed[f"archive:{request.query_params['path']}"])
        packed, place = BytesIO(), self._place(request)
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(place, place.name)
        return Response(packed.getvalue())

    async def _unarchive(self, request: Request) -> Response:
        body = BytesIO(await request.body())
        with tarfile.open(fileobj=body, mode="r") as tar:
            tar.extractall(self._place(request))
        return reply({"entries": [], "truncated": False})

    async def _scripted(self, request: Request) -> Response:
        """Whatever a test put under ``METHOD /path`` in ``fixed`` or ``streams``."""
        path = request.url.path
        if path in self.streams:
            bodies = self.streams[path]
            body = bodies.pop(0) if bodies else b""
            return Response(body, media_type="text/event-stream")
        if path in self.kept:
            return _kept(self.kept[path], int(request.query_params["offset"]))
        if (data := self.fixed.get(f"{request.method} {path}")) is not None:
            return reply(data)
        return Response(b'{"detail":"Not Found"}', 404)


def _kept(pieces: list[tuple[int, bytes]], offset: int) -> Response:
    """The first of the pieces, each with its place, that has something from an offset on."""
    begin, data = offset, b""
    for at, piece in reversed(pieces):
        if at + len(piece) > offset:
            begin, data = max(at, offset), piece[max(offset - at, 0) :]
    return Response(data, headers={"X-Output-Offset": str(begin)})


def _run(wanted: shapes.ExecRequest, folder: Path) -> shapes.ExecResult:
    command = wanted.command
    argv = ["bash", "-c", command] if isinstance(command, str) else command
    stdin = (wanted.stdin or "").encode()
    if wanted.stdin_encoding == "base64":
        stdin = base64.b64decode(stdin)
    timed_out = False
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            cwd=folder,
            timeout=wanted.timeout_ms / 1000,
            check=False,
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as exc:
        timed_out, code, out, err = True, -9, exc.stdout or b"", exc.stderr or b""
    try:
        stdout, stderr, encoding = out.decode(), err.decode(), "utf-8"
    except UnicodeDecodeError:
        stdout, stderr = (base64.b64encode(part).decode() for part in (out, err))
        encoding = "base64"
    return shapes.ExecResult.model_validate(
        {
            "process_id": wanted.process_id or "prc_1",
            "stdout": stdout,
            "stderr": stderr,
            "encoding": encoding,
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "duration_ms": 1.0,
            "timed_out": timed_out,
            "truncated": False,
        }
    )


def _entry(place: Path, path: str) -> shapes.FileEntry:
    info = place.stat()
    return shapes.FileEntry(
        path=path,
        kind="directory" if place.is_dir() else "file",
        size=info.st_size,
        mode=info.st_mode & 0o7777,
        owner="root",
        group="root",
        modified_at=NOW,
        target=None,
    )


_BLANK: dict[str, Any] = {
    "id": "",
    "name": None,
    "state": "running",
    "operation": None,
    "template": "base-debian",
    "template_version": 1,
    "project_id": None,
    "parent_id": None,
    "tags": {},
    "env_names": [],
    "vcpus": 2,
    "memory_mb": 1024,
    "disk_mb": 2048,
    "internet": True,
    "idle_timeout_seconds": 600,
    "max_lifetime_seconds": None,
    "isolation": "emulated",
    "host_id": "hst_1",
    "started_from": "warm",
    "timings": shapes.Timings(total_ms=612.0, restore_ms=300.0, agent_ms=280.0),
    "queue": None,
    "durable": True,
    "ending": None,
    "created_at": NOW,
    "started_at": NOW,
    "paused_at": None,
    "stopped_at": None,
}
