"""The host port: what the api may ask of a machine that runs sandboxes.

Only ids, values and streams cross it, never paths of the host: caller and host may be two machines.
Every act carries an ``op`` id; a repeat of the same id is answered from the host's journal and not
done again. The api owns the wish, the host owns the machine: what really happened comes back as
`Observed`, numbered by ``(epoch, seq)``, so that an older report never overwrites a newer one.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal, Protocol

from pydantic import Field

from runtools.platform.core.egress import Policy, policy
from runtools.platform.core.ports.metrics import Family
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.egress import Egress, EgressLog, EgressRules
from runtools.sdk.shapes.events import HostView
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
from runtools.sdk.shapes.sandboxes import (
    Cause,
    DiskUse,
    Ending,
    Isolation,
    Operation,
    Pruned,
    QueuePlace,
    StartedFrom,
    State,
    Timings,
)
from runtools.sdk.shapes.templates import BuildLine, BuildState


class Sizes(Shape):
    """What a machine is given; MB are 2**20 bytes."""

    vcpus: int
    memory_mb: int
    disk_mb: int


class Guest(Shape):
    """What a sandbox is told about itself when it is renewed, beside its identity."""

    env: dict[str, str] = Field(default_factory=dict, repr=False)
    ssh_keys: list[str] = Field(default_factory=list)
    password_hash: str | None = Field(None, repr=False, description="crypt(5) form, e.g. $6$…")


class CreateOrder(Shape):
    """Make a sandbox: from a template version, or from the disk of an ended or paused one.

    Attributes:
        org_id: whose it is: what the host has for all is shared out among orgs.
    """

    op: str
    sandbox_id: str
    org_id: str = ""
    actor: str
    template_version_id: str
    recover_from: str | None = None
    sizes: Sizes
    guest: Guest
    internet: bool
    egress: EgressRules = Field(default_factory=EgressRules)
    idle_timeout_seconds: int
    max_lifetime_seconds: int | None
    require_isolation: Isolation | None
    queue: bool

    @property
    def policy(self) -> Policy:
        """What it may reach.

        Raises:
            BadRule: an entry means nothing.
        """
        return policy(self.internet, self.egress.allow, self.egress.deny)


class Child(Shape):
    """One child of a fork."""

    sandbox_id: str


class Observed(Shape):
    """What a host sees of one sandbox. Newer is the one with the greater (epoch, seq)."""

    sandbox_id: str
    epoch: int
    seq: int
    at: datetime
    state: State
    operation: Operation | None
    cause: Cause
    actor: str
    isolation: Isolation | None = None
    started_from: StartedFrom | None = None
    timings: Timings | None = None
    queue: QueuePlace | None = None
    durable: bool = True
    ending: Ending | None = None
    detail: dict[str, Any] = Field(default_factory=dict)


class Forked(Shape):
    """What a fork made."""

    children: list[Observed]
    standstill_ms: float


class Kept(Shape):
    """A snapshot that lies on the host."""

    snapshot_id: str
    size_bytes: int
    standstill_ms: float


class Stored(Shape):
    """What a sandbox takes on a host's disk: its own, what is kept of its memory, and its snapshots."""

    sandbox_id: str
    size_bytes: int


class BuildOrder(Shape):
    """Build a template version.

    Attributes:
        org_id: whose it is; empty in what was written down before it was told.
    """

    org_id: str = ""
    version_id: str
    slug: str
    version: int
    recipe: str
    apt: list[str]
    run: str | None


class Built(Shape):
    """How a build stands."""

    version_id: str
    state: BuildState
    progress: float
    step: str
    size_bytes: int
    error: str | None


class FileBody(Shape):
    """What is known of a file before its bytes are read: its size, and the range that will come."""

    entry: FileEntry
    start: int
    end: int


class Host(Protocol):
    """A machine that runs sandboxes.

    Each method that names a sandbox raises `NotFound` where the host does not know it, and
    `SandboxStopped` where it has ended. Those under *inside* wake a paused sandbox and wait, but
    `stats` does not.
    """

    async def view(self) -> HostView:
        """Identity, driver, capacity."""
        ...

    async def metrics(self) -> list[Family]:
        """What it has counted since its start, and how it stands; no ids of sandboxes or orgs."""
        ...

    def reports(self, epoch: int, seq: int) -> AsyncIterator[Observed]:
        """Every report after (epoch, seq), oldest first, then live ones for ever.

        A foreign epoch gets the latest report of every sandbox first.
        """
        ...

    async def create(self, order: CreateOrder) -> Observed:
        """Returns when it runs, or once it has its place in the queue (``operation == "queued"``)."""
        ...

    async def known(self) -> list[Observed]:
        """The latest report of every sandbox that it has, ended ones that are not forgotten included."""
        ...

    async def order(self, sandbox_id: str) -> CreateOrder:
        """How a sandbox was ordered; of one that has ended without its secrets."""
        ...

    async def settled(self, sandbox_id: str, timeout_seconds: float) -> Observed:
        """Wait until no operation is under way; returns the latest report also when time is up."""
        ...

    async def pause(self, sandbox_id: str, op: str, actor: str) -> Observed: ...

    async def resume(
        self, sandbox_id: str, op: str, actor: str, room_seconds: float | None = None
    ) -> Observed:
        """Go on from where it was paused.

        ``room_seconds`` is how long the caller waits for room; by default as long as any call does.

        Raises:
            WaitsForRoom: there is none yet; it waits on, and goes on by itself.
        """
        ...

    async def destroy(self, sandbox_id: str, op: str, actor: str) -> Observed: ...

    async def snapshot(self, sandbox_id: str, op: str, actor: str, snapshot_id: str) -> Kept: ...

    async def rollback(
        self, sandbox_id: str, op: str, actor: str, snapshot_id: str
    ) -> Observed: ...

    async def fork(self, sandbox_id: str, op: str, actor: str, children: list[Child]) -> Forked: ...

    async def drop_snapshot(self, snapshot_id: str) -> None: ...

    # --- inside ---

    async def exec(self, sandbox_id: str, request: ExecRequest) -> ExecResult:
        """Run a command; ``request.process_id`` is set and names it for repeats."""
        ...

    async def signal_exec(self, sandbox_id: str, process_id: str, op: str, signal: int) -> None:
        """Send a signal to a command of `exec` and all that it started.

        One that has not come to the sandbox yet never begins: its `exec` raises `ProcessEnded`.

        Raises:
            ProcessEnded: it has ended.
        """
        ...

    # A process that is not known (never started there, or its record is no longer kept) is `NotFound`.
    # Input, signals and resizes raise `ProcessEnded` where it has ended. `wait_process` and
    # `follow_output` neither wake a paused sandbox nor keep one awake. Who lists, gets or waits until time
    # is up is told `SandboxPaused`, with the `history` in ``details``, where a sandbox was paused before it
    # could say how its processes stand.

    async def start_process(self, sandbox_id: str, request: ProcessRequest) -> Process:
        """Start a durable process; ``request.process_id`` is set, and a repeat of it is answered
        with how the process stands.

        Raises:
            IdempotencyMismatch: the id was used for another request.
        """
        ...

    async def list_processes(self, sandbox_id: str) -> list[Process]:
        """All that are known, oldest first."""
        ...

    async def get_process(self, sandbox_id: str, process_id: str) -> Process: ...

    async def wait_process(self, sandbox_id: str, process_id: str, timeout_ms: int) -> Process:
        """Wait for its end; how it stands when time is up. Pauses are waited out."""
        ...

    async def read_output(
        self,
        sandbox_id: str,
        process_id: str,
        stream: Stream,
        start: int,
        limit: int,
        history: str | None = None,
    ) -> OutputPiece:
        """At most ``limit`` (1 to 1 MiB) bytes that are there now; none at the end.

        A start that is no longer kept is moved to what is, and ``dropped`` says by how much. ``history``
        is the one that the start belongs to, as `Process` names it.

        Raises:
            HistoryChanged: the sandbox went back to a snapshot since: it is in another.
            InvalidRequest: the start lies beyond the end; ``details["end"]`` is where that is.
        """
        ...

    def follow_output(
        self,
        sandbox_id: str,
        process_id: str,
        stream: Stream,
        start: int,
        history: str | None = None,
    ) -> AsyncIterator[OutputPiece | OutputEnd]:
        """Every byte from an offset on as it comes, and at last how the process ended.

        Goes on after pauses, resumes and a restart of the agent inside; a rollback ends it with
        `HistoryChanged`. As `read_output` otherwise.
        """
        ...

    async def send_input(self, sandbox_id: str, process_id: str, op: str, data: Octets) -> int:
        """Give it input (at most 64 KiB a call); returns the bytes that were taken so far in all.

        Raises:
            InputFull: the process does not read: none of these bytes was taken.
            InputClosed: it takes no more input.
        """
        ...

    async def close_input(self, sandbox_id: str, process_id: str, op: str) -> Process:
        """The end of its input, after what was sent; in a terminal the end-of-file character."""
        ...

    async def signal_process(
        self, sandbox_id: str, process_id: str, op: str, signal: int
    ) -> Process:
        """Send a signal to it and all that it started; INT, QUIT and TSTP of a terminal, as its keys
        do, to what runs in the foreground.
        """
        ...

    async def end_process(self, sandbox_id: str, process_id: str) -> None:
        """End it with all that it started; one that has not begun yet does not begin any more, also where
        its start waits for the sandbox: that is refused with `ProcessEnded`.

        Wakes nothing and waits for no room: in a sandbox that sleeps it ends once that goes on. One that is
        not known is none that runs. Where its guest does not answer it is ended once it does, and who asks
        is told that it does not.

        Raises:
            Unavailable: it cannot be ended now, and the disk does not take that it is to be.
            Conflict: nor now, and as much is owed to its sandbox as is kept.
        """
        ...

    async def resize_terminal(
        self, sandbox_id: str, process_id: str, op: str, size: TerminalSize
    ) -> Process:
        """Raises `InvalidRequest` where it has no terminal."""
        ...

    # --- what it may reach ---

    async def set_egress(self, sandbox_id: str, generation: int, egress: Egress) -> None:
        """Put an egress policy in force: when it returns, flows that it does not admit are cut.

        Wakes nobody. A repeat of the generation in force does no harm.

        Raises:
            Conflict: a newer one is in force; ``details`` has its ``egress_generation``.
            Unavailable: it cannot be put in force; nothing leaves the sandbox then.
        """
        ...

    async def set_limits(
        self, sandbox_id: str, idle_timeout_seconds: int, max_lifetime_seconds: int | None
    ) -> None:
        """How long it may be idle, and how long it may run, from now on. Wakes nobody."""
        ...

    async def hand_over(self, sandbox_id: str, org_id: str) -> None:
        """Whose it is from now on, as `CreateOrder.org_id` says it. Wakes nobody."""
        ...

    async def egress_log(self, sandbox_id: str) -> EgressLog:
        """What it was refused; of a stopped one too."""
        ...

    async def stats(self, sandbox_id: str) -> Stats: ...

    async def stats_history(self, sandbox_id: str) -> StatsHistory:
        """What it took in the last hour; of a stopped one too, as long as its disk is kept."""
        ...

    async def console(self, sandbox_id: str, lines: int) -> list[str]:
        """The last lines of the machine's console, also after its end."""
        ...

    async def stat(self, sandbox_id: str, path: str) -> FileEntry: ...

    async def list(self, sandbox_id: str, path: str, depth: int) -> Listing: ...

    async def mkdir(self, sandbox_id: str, op: str, path: str, mode: int) -> FileEntry: ...

    async def move(
        self, sandbox_id: str, op: str, source: str, target: str, overwrite: bool
    ) -> FileEntry: ...

    async def copy(
        self, sandbox_id: str, op: str, source: str, target: str, overwrite: bool
    ) -> FileEntry: ...

    async def edit(
        self, sandbox_id: str, op: str, path: str, old: str, new: str, occurrences: int
    ) -> FileEntry:
        """Replace a text that stands so often in a file (0: once or more), as one act.

        Raises:
            EditUnfit: it does not; nothing was changed.
        """
        ...

    async def chmod(self, sandbox_id: str, op: str, path: str, mode: int) -> FileEntry: ...

    async def remove(self, sandbox_id: str, op: str, path: str, recursive: bool) -> None: ...

    async def read(
        self, sandbox_id: str, path: str, start: int, end: int | None
    ) -> tuple[FileBody, AsyncIterator[bytes]]:
        """A file's bytes from start to end (exclusive). The iterator must be run out or closed."""
        ...

    async def write(
        self,
        sandbox_id: str,
        op: str,
        path: str,
        chunks: AsyncIterator[bytes],
        mode: int | None,
        how: Literal["replace", "append"],
    ) -> FileEntry:
        """Replace is atomic (a reader sees the old or the new file); parents are made."""
        ...

    async def download(self, sandbox_id: str, path: str) -> AsyncIterator[bytes]:
        """A file or folder as a tar stream, names relative to its parent."""
        ...

    async def upload(
        self, sandbox_id: str, op: str, path: str, chunks: AsyncIterator[bytes]
    ) -> Listing:
        """Unpack a tar stream below a folder."""
        ...

    def watch(
        self, sandbox_id: str, path: str, recursive: bool, after: int | None
    ) -> AsyncIterator[FileChange]:
        """What changes below a folder, for ever; the first item is `armed` or `overflow`.

        Without ``after`` it begins now, and wakes the sandbox for that. With it, it goes on after that
        change, wakes nothing, and begins with `overflow` where something since then is lost. It lives
        through pauses and keeps nothing awake.

        Raises:
            FileMissing, FileNotDirectory: there is no such folder, or not any more.
            TooLarge: there are more folders below it than can be watched.
            RateLimited: the sandbox has as many readers as it may.
        """
        ...

    # --- templates and space ---

    async def build(self, order: BuildOrder) -> Built:
        """Begin a build, or queue it; a repeat of the same version returns how it stands.

        Raises:
            Conflict: the version was dropped before this came.
        """
        ...

    async def built(self, version_id: str) -> Built: ...

    def build_log(self, version_id: str, after: int) -> AsyncIterator[BuildLine]:
        """Every line after position ``after``; ends when the build has ended and all were given."""
        ...

    async def drop_template(self, version_id: str) -> None:
        """Remove a version, ending its build; its log ends then, too."""
        ...

    async def disk_use(self) -> DiskUse: ...

    async def stored(self) -> builtins.list[Stored]:
        """What every sandbox takes on the disk, those that are kept for recovery too."""
        ...

    async def prune(self, ended: bool, warm: bool) -> Pruned: ...
