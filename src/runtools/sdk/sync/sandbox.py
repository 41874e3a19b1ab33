# Generated from sdk/sandbox.py by scripts/generate_sync.py: edit that, then run it.
"""One sandbox: what it is, and everything that can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import Any

from runtools.errors import Conflict, DeadlineExceeded, SandboxStopped, WaitsForRoom
from runtools.sdk import shapes, wire
from runtools.sdk.concurrency import LEFT, sync_farewell
from runtools.sdk.shapes.inside import DEFAULT_EXEC_TIMEOUT_MS, MAX_OUTPUT_BYTES, WORKSPACE
from runtools.sdk.shapes.sandboxes import (
    Ending,
    Isolation,
    Operation,
    QueuePlace,
    StartedFrom,
    State,
    Timings,
)
from runtools.sdk.sync.desktop import Desktop
from runtools.sdk.sync.dev_urls import DevUrls, SandboxHttp
from runtools.sdk.sync.egress import Egress
from runtools.sdk.sync.files import Files
from runtools.sdk.sync.processes import Processes
from runtools.sdk.sync.ssh import Ssh
from runtools.sdk.sync.transport import Transport

_WAIT_SECONDS = 30  # how long one request waits for a change; the platform allows 60
_ROOM = [("waitSeconds", 1)]  # who waits on for room looks how the sandbox stands
_COMING = ("queued", "resuming")


class Sandbox:
    """A sandbox as it was when last heard of; `refresh` asks again, and every act does.

    ``view`` is the same as one immutable value. As a context manager it is destroyed at the end.
    """

    view: shapes.Sandbox
    id: str
    name: str | None
    state: State
    operation: Operation | None
    template: str
    template_version: int
    project_id: str | None
    parent_id: str | None
    tags: dict[str, str]
    env_names: list[str]
    vcpus: int
    memory_mb: int
    disk_mb: int
    internet: bool
    idle_timeout_seconds: int
    max_lifetime_seconds: int | None
    isolation: Isolation | None
    host_id: str | None
    started_from: StartedFrom | None
    timings: Timings | None
    queue: QueuePlace | None
    durable: bool
    ending: Ending | None
    created_at: datetime
    started_at: datetime | None
    paused_at: datetime | None
    stopped_at: datetime | None

    def __init__(self, transport: Transport, view: shapes.Sandbox) -> None:
        self._transport = transport
        self._path = f"/sandboxes/{wire.segment(view.id)}"
        self.files = Files(transport, self._path)
        self.processes = Processes(transport, self._path)
        self.egress = Egress(transport, self._path)
        self.ssh = Ssh(transport, self._path)
        self.urls = DevUrls(transport, self._path)
        self.desktop = Desktop(transport, self._path)
        self._take(view)

    def __repr__(self) -> str:
        doing = f" {self.operation}" if self.operation else ""
        return f"<{type(self).__name__} {self.id} {self.name or '-'} {self.state}{doing}>"

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()

    def _take(self, view: shapes.Sandbox) -> None:
        self.view = view
        self.__dict__.update(view.__dict__)

    def _act(
        self,
        method: str,
        path: str,
        key: str | None,
        body: Mapping[str, Any] | None = None,
        query: wire.Query | None = None,
    ) -> wire.Answer:
        path, seconds = self._path + path, wire.ACT_SECONDS
        return self._transport.call(method, path, query=query, body=body, key=key, seconds=seconds)

    def exec(
        self,
        command: str | Sequence[str],
        *,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = WORKSPACE,
        user: str = "root",
        timeout_ms: int = DEFAULT_EXEC_TIMEOUT_MS,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        process_id: str | None = None,
    ) -> shapes.ExecResult:
        """Run a command and wait for its end. A paused sandbox is woken.

        A call that is left before its end (its task cancelled, Ctrl-C) kills the command with all that it
        started. What shall outlive its caller is a process: ``sb.processes.start``.

        Args:
            command: one line for a shell, or the arguments themselves, passed unchanged.
            stdin: what it reads, at most 7 MiB; nothing by default.
            env: set beside the sandbox's own.
            cwd: where it starts.
            user: who it runs as.
            timeout_ms: after so many milliseconds it is killed with everything it started.
            max_output_bytes: kept of each stream; the result says when there was more.
            process_id: a name for the command; a repeat of the name is answered, not run again.

        Returns:
            How it ended; a failing command is no error here: look at ``exit_code``, ``signal``,
            ``timed_out`` and ``truncated``.

        Raises:
            SandboxStopped: the sandbox has ended.
            SandboxPaused: it was paused before the command ended; asked for again under the same
                ``process_id`` the command goes on.
            HistoryChanged: it went back to a snapshot before the command ended.
            WaitsForRoom: it sleeps, and its host has had no room for it in a minute; the command was not
                begun. It waits on: once `wait_until_running` returns, ask again.
            GuestUnreachable: the agent inside does not answer.
            FileMissing: the program is not there (``details["program"]``), or ``cwd`` is not.
            FileForbidden: the program may not be executed.
            TooLarge: ``stdin`` is; a file takes any size.
            ProcessEnded: it was ended by `signal_exec` before it had begun.
        """
        name = process_id or wire.new_process_id()
        body: dict[str, Any] = {
            "command": command if isinstance(command, str) else list(command),
            "processId": name,
            "env": dict(env) if env else None,
            "cwd": cwd,
            "user": user,
            "timeoutMs": timeout_ms,
            "maxOutputBytes": max_output_bytes,
            **wire.stdin(stdin),
        }
        seconds = timeout_ms / 1000 + wire.WAKE_SECONDS
        path = f"{self._path}/exec"
        try:
            answer = self._transport.call("POST", path, body=body, seconds=seconds)
        except LEFT:
            sync_farewell(lambda: self.signal_exec(name, "KILL"))
            raise
        return wire.shape(shapes.ExecResult, answer.data)

    def signal_exec(self, process_id: str, signal: int | str = "TERM") -> None:
        """Send a signal, by number or name, to a command that runs in an `exec` of somebody, and to all
        that it started. One that is still on its way to the sandbox is not begun any more.

        Raises:
            ProcessEnded: it has ended.
        """
        path = f"{self._path}/exec/{wire.segment(process_id)}/signal"
        self._transport.call("POST", path, body={"signal": signal}, seconds=wire.SIGNAL_SECONDS)

    def refresh(self) -> Sandbox:
        """Ask how it is now; returns itself."""
        self._take(wire.shape(shapes.Sandbox, (self._transport.call("GET", self._path)).data))
        return self

    def wait_until_running(
        self,
        timeout_seconds: float | None = None,
        on_wait: Callable[[Sandbox], None] | None = None,
    ) -> Sandbox:
        """Wait for one that is creating, or wakes; returns itself when it runs (or is paused again).

        Args:
            timeout_seconds: so long at most; by default for as long as it takes.
            on_wait: called while it does not run yet, with the sandbox as it stands: ``queue`` is its
                place, where it waits for room on its host.

        Raises:
            SandboxStopped: it never came to run; the message says why.
            DeadlineExceeded: it did not within the time given.
        """
        until = None if timeout_seconds is None else monotonic() + timeout_seconds
        while self.state == "creating" or self.operation in _COMING:
            if on_wait is not None:
                on_wait(self)
            left = _WAIT_SECONDS if until is None else until - monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"{self.id} is still {self.operation or self.state}")
            query = [("waitSeconds", max(min(_WAIT_SECONDS, round(left)), 1))]
            answer = self._transport.call("GET", self._path, query=query)
            self._take(wire.shape(shapes.Sandbox, answer.data))
        if self.state == "stopped":
            reason = self.ending.reason if self.ending else "nobody knows why"
            raise SandboxStopped(
                f"{self.id} has stopped: {reason}",
                hint=f"runtools sandbox why {self.id} tells more",
            )
        return self

    def pause(self, *, idempotency_key: str | None = None) -> Sandbox:
        """Put it to sleep: memory and processes are kept, computing stops. Returns itself."""
        return self._seen(self._act("POST", "/pause", idempotency_key))

    def resume(
        self,
        *,
        timeout_seconds: float | None = None,
        on_wait: Callable[[Sandbox], None] | None = None,
        idempotency_key: str | None = None,
    ) -> Sandbox:
        """Wake it: its processes go on where they were. Returns itself.

        Where its host has no room for it, it waits for that, as one that is created does.

        Args:
            timeout_seconds: it is waited for so long at most; by default for as long as it takes.
            on_wait: called while it waits for room, with the sandbox as it stands.
            idempotency_key: a repeat with the same key waits with the first.

        Raises:
            WaitsForRoom: the time given was over. It waits on and goes on by itself, until it is paused
                again; ``details`` have its place, and what there is not enough of.
            Conflict: it was paused again before there was room, or could not go on.
        """
        until = None if timeout_seconds is None else monotonic() + timeout_seconds
        try:
            return self._seen(self._act("POST", "/resume", idempotency_key, query=_ROOM))
        except WaitsForRoom as waits:
            told = waits
        self.refresh()
        try:
            left = None if until is None else max(until - monotonic(), 0)
            self.wait_until_running(left, on_wait)
        except DeadlineExceeded:
            raise told from None
        if self.state == "paused":
            raise Conflict(
                f"{self.id} is paused: it was paused again before there was room, or could not go on",
                hint=f"runtools sandbox why {self.id} tells which",
            )
        return self

    def rollback(self, to: str, *, idempotency_key: str | None = None) -> Sandbox:
        """Go back to a snapshot (its id or name); what happened since is lost. Returns itself."""
        return self._seen(self._act("POST", "/rollback", idempotency_key, {"to": to}))

    def destroy(self, *, idempotency_key: str | None = None) -> None:
        """End it and remove its disk; one that has ended already stays so. Not to be undone."""
        answer = self._act("DELETE", "", idempotency_key)
        if answer.data is not None:
            self._seen(answer)

    def _seen(self, answer: wire.Answer) -> Sandbox:
        self._take(wire.shape(shapes.Sandbox, answer.data))
        return self

    def fork(
        self,
        count: int = 1,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        wait_for_ready: bool = True,
        on_wait: Callable[[Sandbox], None] | None = None,
        idempotency_key: str | None = None,
    ) -> Forked:
        """Make copies of it as it is now, processes and memory included; returns when they run.

        Args:
            count: 1 to 64 children.
            name: the child's name, or the stem of several: ``name-1`` …
            tags: the children's; default: its own.
            wait_for_ready: False: return at once, some may still be creating.
            on_wait: called while a child waits in the queue, with the child as it stands.
            idempotency_key: a repeat with the same key is answered, not done again.

        Returns:
            The children as a sequence, with ``standstill_ms``: how long this one stood still.

        Raises:
            SandboxStopped: some never came to run; ``details`` has why (``failed``, by id), and the
                ids of those that do run (``running``).
        """
        body = {"count": count, "name": name, "tags": None if tags is None else dict(tags)}
        answer = self._act("POST", "/fork", idempotency_key, body)
        fork = wire.shape(shapes.Fork, answer.data)
        children = [Sandbox(self._transport, view) for view in fork.children]
        failed: dict[str, str] = {}
        for child in children if wait_for_ready else ():
            try:
                child.wait_until_running(on_wait=on_wait)
            except SandboxStopped as stopped:
                failed[child.id] = stopped.message
        if failed:
            running = [child.id for child in children if child.id not in failed]
            raise SandboxStopped(
                f"{len(failed)} of {len(children)} children never came to run: "
                + "; ".join(failed.values()),
                hint=f"running: {', '.join(running)}" if running else None,
                details={"failed": failed, "running": running},
            )
        return Forked(children, fork.standstill_ms)

    def recover(self, *, name: str | None = None, idempotency_key: str | None = None) -> Sandbox:
        """Boot a new sandbox from the disk of this one, which has ended; returns the new one."""
        answer = self._act("POST", "/recover", idempotency_key, {"name": name})
        recovered = Sandbox(self._transport, wire.shape(shapes.Sandbox, answer.data))
        return recovered.wait_until_running()

    def snapshot(
        self, name: str | None = None, *, idempotency_key: str | None = None
    ) -> shapes.Snapshot:
        """Keep its present state, to roll back to; it goes on as it was."""
        answer = self._act("POST", "/snapshots", idempotency_key, {"name": name})
        return wire.shape(shapes.Snapshot, answer.data)

    def snapshots(self) -> list[shapes.Snapshot]:
        """Its snapshots."""
        return wire.shapes(shapes.Snapshot, (self._get("/snapshots")).data)

    def delete_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot by id or name."""
        self._act("DELETE", f"/snapshots/{wire.segment(snapshot)}", None)

    def url(self, port: int) -> str:
        """The address of a port, for browsers: ``urls`` has links, and says who may enter."""
        return (self.urls.get(port)).url

    def http(self, port: int) -> SandboxHttp:
        """A client for what listens on a port, also where names below ``localhost`` do not resolve."""
        return SandboxHttp(self.urls, port, self._transport.url)

    def why(self) -> list[shapes.LedgerEntry]:
        """Everything that happened to it, when, why and by whom: also after its end."""
        with closing(self._transport.pages(f"{self._path}/why", [], 100)) as items:
            return [wire.shape(shapes.LedgerEntry, item) for item in items]

    def stats(self) -> shapes.Stats:
        """Its CPU, memory, disk, uptime and listening ports; a paused one's are its last."""
        return wire.shape(shapes.Stats, (self._get("/stats")).data)

    def stats_history(self) -> shapes.StatsHistory:
        """What it took in the last hour, a point every ten seconds; the time without is stated."""
        return wire.shape(shapes.StatsHistory, (self._get("/stats/history")).data)

    def console(self, lines: int = 100) -> list[str]:
        """The last lines of the machine's console: also after its end."""
        answer = self._get("/console", [("lines", lines)])
        return wire.texts(answer.data)

    def events(self, after: int | None = None) -> Generator[shapes.SandboxEvent, None, None]:
        """Its changes as they happen, for ever; ``after``: an event's id."""
        last = None if after is None else str(after)
        with closing(self._transport.follow(f"{self._path}/events", after=last)) as events:
            for event in events:
                if event.name == "sandbox":
                    yield wire.parsed(shapes.SandboxEvent, event.data)

    def _get(self, path: str, query: wire.Query | None = None) -> wire.Answer:
        return self._transport.call("GET", self._path + path, query=query)


class Forked(list[Sandbox]):
    """The children of a fork, and how long their parent stood still for it."""

    def __init__(self, children: Sequence[Sandbox], standstill_ms: float) -> None:
        super().__init__(children)
        self.standstill_ms = standstill_ms

    @property
    def view(self) -> shapes.Fork:
        """The same as one value."""
        return shapes.Fork(
            children=[child.view for child in self], standstill_ms=self.standstill_ms
        )
