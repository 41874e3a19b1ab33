"""Sandboxes, their snapshots and their ledger, as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.dev_urls import Access
from runtools.sdk.shapes.egress import EgressRules

State = Literal["creating", "running", "paused", "stopped"]
Operation = Literal[
    "queued",
    "starting",
    "pausing",
    "resuming",
    "snapshotting",
    "rolling_back",
    "forking",
    "destroying",
]
Isolation = Literal["hardware", "emulated"]
StartedFrom = Literal["warm", "cold", "fork", "recovery"]
Cause = Literal[
    "request",  # somebody asked for it: `actor` says who
    "idle",  # nothing happened for idleTimeoutSeconds
    "lifetime",  # maxLifetimeSeconds was reached
    "disk_low",  # the host's disk was about to fill
    "isolation",  # it ran under less isolation than its host's operator requires by now
    "shutdown",  # the platform was taken down in order
    "vmm_exit",  # the virtual machine's process ended by itself
    "host_restart",  # the machine or platform restarted under it
    "start_failed",  # it never came to run
]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
TagText = Annotated[str, StringConstraints(max_length=256)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]

DEFAULT_VCPUS = 2
DEFAULT_MEMORY_MB = 1024
DESKTOP_MEMORY_MB = 2048
DEFAULT_DISK_MB = 2048
DEFAULT_IDLE_TIMEOUT_SECONDS = 600
MAX_ENV_BYTES = 131_072


class SandboxCreate(Request, defer_build=True):
    """What `POST /v1/sandboxes` takes; sizes in MB (2**20 bytes), times in seconds."""

    template: str | None = Field(None, description="slug or slug@version; default base-debian")
    name: Name | None = None
    tags: dict[TagText, TagText] = Field(default_factory=dict, max_length=64)
    env: dict[EnvName, str] = Field(default_factory=dict, description="at most 128 KB in all")
    secrets: list[EnvName] = Field(
        default_factory=list,
        max_length=64,
        description="secrets (category custom, scope sandboxes or all) to be set in the environment",
    )
    ssh_keys: list[str] = Field(
        default_factory=list,
        max_length=64,
        description="public keys, and ids or labels of registered ones",
    )
    password: str | None = Field(None, min_length=8, max_length=512, repr=False)
    idle_timeout_seconds: int = Field(DEFAULT_IDLE_TIMEOUT_SECONDS, ge=0, le=31_536_000)
    max_lifetime_seconds: int | None = Field(None, ge=1, le=31_536_000)
    vcpus: int = Field(DEFAULT_VCPUS, ge=1, le=64)
    memory_mb: int | None = Field(
        None,
        ge=256,
        le=524_288,
        description=f"default: what the template is made for: {DEFAULT_MEMORY_MB}, a desktop's "
        f"{DESKTOP_MEMORY_MB}",
    )
    disk_mb: int = Field(DEFAULT_DISK_MB, ge=512, le=4_194_304)
    internet: bool = True
    egress: EgressRules | None = Field(None, description="default: every public address")
    require_isolation: Isolation | None = None
    dev_urls: Access | None = Field(
        None, description="who may enter its ports by their URLs; default: what the org has chosen"
    )
    project_id: str | None = Field(
        None,
        max_length=64,
        pattern=r"^[^\x00]*$",
        description="a project's id or name; default: the org's default one",
    )
    wait_for_ready: bool = Field(
        True, description="answer when it runs; false: answer at once, still creating"
    )
    queue: bool = Field(True, description="wait for room; false: refuse when there is none")


class SandboxFork(Request, defer_build=True):
    """What `POST /v1/sandboxes/{id}/fork` takes."""

    count: int = Field(1, ge=1, le=64)
    name: Name | None = Field(
        None, description="the child's name, or the stem of several: name-1 …"
    )
    tags: dict[TagText, TagText] | None = None


class SandboxRecover(Request, defer_build=True):
    """What `POST /v1/sandboxes/{id}/recover` takes."""

    name: Name | None = None


class SnapshotCreate(Request, defer_build=True):
    """What `POST /v1/sandboxes/{id}/snapshots` takes."""

    name: Name | None = None


class Rollback(Request, defer_build=True):
    """What `POST /v1/sandboxes/{id}/rollback` takes: a snapshot's id or name."""

    to: str


class Timings(Shape, defer_build=True):
    """Where the milliseconds of a start went."""

    queue_ms: float = 0.0
    place_ms: float = 0.0
    restore_ms: float = 0.0
    network_ms: float = 0.0
    agent_ms: float = 0.0
    first_byte_ms: float = 0.0
    total_ms: float = 0.0


class QueuePlace(Shape, defer_build=True):
    """Where a waiting create stands; how long is not known until some have come and gone."""

    position: int
    estimated_wait_seconds: float | None


class Ending(Shape, defer_build=True):
    """What ended a sandbox."""

    cause: Cause
    reason: str
    exit_code: int | None = None
    signal: int | None = None
    console_tail: list[str] = Field(default_factory=list)
    memory_pressure: str | None = None
    recoverable_until: datetime | None = None


class Sandbox(Shape, defer_build=True):
    """A sandbox as the API shows it. Its environment's values and password are never shown."""

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
    durable: bool = Field(description="whether a paused state would survive a power loss now")
    ending: Ending | None
    created_at: datetime
    started_at: datetime | None
    paused_at: datetime | None
    stopped_at: datetime | None


class Fork(Shape, defer_build=True):
    """The children of a fork, and how long the parent stood still."""

    children: list[Sandbox]
    standstill_ms: float


class Snapshot(Shape, defer_build=True):
    """A kept state of a sandbox."""

    id: str
    sandbox_id: str
    name: str | None
    template: str
    template_version: int
    size_bytes: int
    standstill_ms: float
    created_at: datetime


class LedgerEntry(Shape, defer_build=True):
    """One line of a sandbox's ledger: what changed, why, and who asked."""

    seq: int
    at: datetime
    sandbox_id: str
    state: State
    operation: Operation | None
    cause: Cause
    actor: str
    detail: dict[str, Any]


class DiskUse(Shape, defer_build=True):
    """What `runtools df` shows, in bytes on disk."""

    total_bytes: int
    free_bytes: int
    templates_bytes: int
    warm_bytes: int
    sandboxes_bytes: int
    snapshots_bytes: int
    ended_bytes: int = Field(description="disks kept for recovery")


class Pruned(Shape, defer_build=True):
    """What `runtools prune` removed."""

    ended_sandboxes: int
    warm_snapshots: int
    freed_bytes: int
