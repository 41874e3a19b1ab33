"""What goes on inside a sandbox: commands, files, stats."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Literal

from pydantic import Field

from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.sandboxes import EnvName

DEFAULT_EXEC_TIMEOUT_MS = 30_000
MAX_OUTPUT_BYTES = 8 * 1024 * 1024
MAX_EDIT_CHARACTERS = 1024 * 1024
"""Of a text that is replaced in a file, and of what replaces it."""
WORKSPACE = "/workspace"

FileKind = Literal["file", "directory", "symlink", "other"]
FileChangeKind = Literal["armed", "create", "change", "move", "delete", "overflow"]


class ExecRequest(Request, defer_build=True):
    """A command: one shell line (run by ``bash -c``) or an argument list."""

    command: str | list[str] = Field(min_length=1)
    process_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.:-]{1,128}$", description="a repeat is answered, not run again"
    )
    stdin: str | None = None
    stdin_encoding: Literal["utf-8", "base64"] = "utf-8"
    env: dict[EnvName, str] = Field(default_factory=dict)
    cwd: str = WORKSPACE
    user: str = "root"
    timeout_ms: int = Field(DEFAULT_EXEC_TIMEOUT_MS, ge=1, le=86_400_000)
    max_output_bytes: int = Field(
        MAX_OUTPUT_BYTES,
        ge=0,
        le=MAX_OUTPUT_BYTES,
        description="kept of each stream; the rest is read, dropped and stated as truncated",
    )


class ExecResult(Shape, defer_build=True):
    """How a command ended. Exactly one of exit_code and signal is set, unless its end was lost."""

    process_id: str
    stdout: str
    stderr: str
    encoding: Literal["utf-8", "base64"]
    exit_code: int | None
    signal: int | None
    duration_ms: float
    timed_out: bool
    truncated: bool

    @property
    def stdout_bytes(self) -> bytes:
        """The output as it was."""
        return self._bytes(self.stdout)

    @property
    def stderr_bytes(self) -> bytes:
        """The error output as it was."""
        return self._bytes(self.stderr)

    def _bytes(self, text: str) -> bytes:
        return base64.b64decode(text) if self.encoding == "base64" else text.encode()


class FileEntry(Shape, defer_build=True):
    """One entry of a sandbox's file system."""

    path: str
    kind: FileKind
    size: int
    mode: int = Field(description="permission bits, e.g. 0o644 as 420")
    owner: str
    group: str
    modified_at: datetime
    target: str | None = Field(None, description="where a symlink points")


class FileChange(Shape, defer_build=True):
    """Something changed below a watched folder. `id` resumes the watch after it.

    `armed` comes first and says that nothing is missed from here on. `overflow` says that changes were
    lost: look at the files again. `create` is also what took another's place or came from outside.
    """

    id: int
    kind: FileChangeKind
    path: str = Field(description="bytes that are no UTF-8 as \\xNN")
    source: str | None = Field(None, description="of a move: where it was")
    is_directory: bool = False


class Listing(Shape, defer_build=True):
    """A directory's entries, sorted by path; truncated says that there are more."""

    entries: list[FileEntry]
    truncated: bool


class Stats(Shape, defer_build=True):
    """What the machine inside says of itself; a paused sandbox shows its last ones."""

    cpu_percent: float = Field(description="of all its vCPUs, since the previous reading")
    memory_used_bytes: int
    memory_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    uptime_seconds: float
    processes: int
    listening_ports: list[int]
    measured_at: datetime


GapReason = Literal["paused", "stopped", "creating", "not_watched"]


class StatsPoint(Shape, defer_build=True):
    """What a sandbox took, up to a moment.

    CPU, memory, disk and network are the host's count of the virtual machine. The guest's two are what
    the machine inside last said of itself, at most a minute before; None where it said nothing.
    """

    at: datetime
    seconds: float = Field(description="for how long up to `at` CPU and network are counted")
    cpu_percent: float | None = Field(
        description="of its vCPUs, the work of emulating devices included, so it may exceed 100; "
        "None where there was nothing to count from"
    )
    memory_bytes: int = Field(description="resident in the host, shared pages included")
    disk_bytes: int = Field(description="what its disk takes on the host's")
    received_bytes: int | None = Field(description="from outside in these seconds")
    sent_bytes: int | None = Field(description="to outside in these seconds")
    guest_memory_used_bytes: int | None
    guest_disk_used_bytes: int | None


class StatsGap(Shape, defer_build=True):
    """A stretch of time without points: it did not run, or (`not_watched`) the platform did not."""

    since: datetime
    until: datetime
    reason: GapReason


class StatsHistory(Shape, defer_build=True):
    """The last hour of a sandbox, oldest first."""

    interval_seconds: int
    since: datetime
    until: datetime
    points: list[StatsPoint]
    gaps: list[StatsGap]


class MkdirRequest(Request, defer_build=True):
    """Make a directory, parents included."""

    path: str
    mode: int = Field(0o755, ge=0, le=0o7777)


class MoveRequest(Request, defer_build=True):
    """Move or copy within a sandbox."""

    source: str
    target: str
    overwrite: bool = False


class EditRequest(Request, defer_build=True):
    """Replace an exact text in a file."""

    path: str
    old: str = Field(min_length=1, max_length=MAX_EDIT_CHARACTERS)
    new: str = Field(max_length=MAX_EDIT_CHARACTERS)
    occurrences: int = Field(
        1,
        ge=0,
        le=1 << 24,
        description="how often it must stand there; 0: any number of times, not none",
    )


class ChmodRequest(Request, defer_build=True):
    """Change permission bits."""

    path: str
    mode: int = Field(ge=0, le=0o7777)
