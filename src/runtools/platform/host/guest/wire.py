"""What a guest may answer: strict shapes with bounds, and the errors it may name.

The guest is hostile. Whatever does not fit here is `GuestMisbehaved`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import pydantic_core
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from runtools import errors
from runtools.errors import GuestMisbehaved, RunToolsError
from runtools.guest import protocol
from runtools.sdk.shapes.inside import FileEntry

_MAX_DETAILS: Final = 16
_MAX_TEXT: Final = 2000
_MAX_PORTS: Final = 256
_MAX_COMMAND: Final = 4200  # the agent cuts it before

# The errors that are about what was asked. All others are about the agent itself.
_ERRORS: Final = {
    kind.code: kind
    for kind in (
        errors.InvalidRequest,
        errors.InvalidPath,
        errors.IdempotencyMismatch,
        errors.OutcomeUnknown,
        errors.NotFound,
        errors.ProcessEnded,
        errors.InputClosed,
        errors.InputFull,
        errors.EditUnfit,
        errors.TooLarge,
        errors.Unavailable,
        errors.PortClosed,
        errors.FileError,
        errors.FileMissing,
        errors.FileAlreadyExists,
        errors.FileForbidden,
        errors.FileIsDirectory,
        errors.FileNotDirectory,
        errors.DiskFull,
    )
}

Count = Annotated[int, Field(ge=0, le=1 << 62)]
Text = Annotated[str, Field(max_length=256)]
KeyText = Annotated[str, Field(max_length=2048)]
PathText = Annotated[str, Field(max_length=4 * 4096)]
# Seconds that a datetime can hold.
Seconds = Annotated[float, Field(ge=-62_000_000_000, le=253_000_000_000, allow_inf_nan=False)]


def _in_order(span: list[int]) -> list[int]:
    if span[0] > span[1]:
        raise ValueError("it begins after its end")
    return span


Span = Annotated[list[Count], Field(min_length=2, max_length=2), AfterValidator(_in_order)]


class Answer(BaseModel):
    """Something that a guest says."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Hello(Answer):
    """Who answers."""

    version: int
    boot: Text
    features: Annotated[dict[Text, bool | Text], Field(max_length=32)]


class Entry(Answer):
    """One file."""

    path: PathText
    kind: Literal["file", "directory", "symlink", "other"]
    size: Count
    mode: Annotated[int, Field(ge=0, le=0o7777)]
    owner: Text
    group: Text
    modified: Seconds
    target: PathText | None

    def shape(self) -> FileEntry:
        """As users see it."""
        return FileEntry(
            path=self.path,
            kind=self.kind,
            size=self.size,
            mode=self.mode,
            owner=self.owner,
            group=self.group,
            modified_at=datetime.fromtimestamp(self.modified, UTC),
            target=self.target,
        )


class Entries(Answer):
    """A listing."""

    entries: Annotated[list[Entry], Field(max_length=protocol.MAX_ENTRIES)]
    truncated: bool


class Opened(Answer):
    """A file that will be read: what it is, and which range comes."""

    entry: Entry
    start: Count
    end: Count


class Packed(Answer):
    """A tar stream that will come."""

    entry: Entry


class Ran(Answer):
    """How a command ended."""

    exit_code: Annotated[int, Field(ge=0, le=255)] | None
    signal: Annotated[int, Field(ge=1, le=64)] | None
    duration_ms: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
    timed_out: bool
    truncated: bool
    stdout: Count
    stderr: Count


class Measured(Answer):
    """Stats."""

    cpu_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    memory_used: Count
    memory_total: Count
    disk_used: Count
    disk_total: Count
    uptime: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
    processes: Count
    ports: Annotated[list[Annotated[int, Field(ge=0, le=65535)]], Field(max_length=65536)]


class Stirring(Answer):
    """Signs of activity; times in ticks of a hundredth of a second."""

    running: Count
    output: Count
    connections: Count
    traffic: Count | None
    busy: Count
    total: Count


class Renewed(Answer):
    """Evidence of a renewal."""

    nonce: Text
    machine: bool
    clock: Seconds
    reseeded: bool
    machine_id: Text
    hostname: Text
    host_keys: Annotated[dict[Text, KeyText | None], Field(max_length=16)]
    skipped: Annotated[list[Text], Field(max_length=16)]


class Grown(Answer):
    """A file system that was resized."""

    bytes: Count


class Change(Answer):
    """One change below a watched folder."""

    kind: Literal["create", "change", "move", "delete", "overflow"]
    path: PathText
    source: PathText | None
    folder: bool


class Changes(Answer):
    """The changes after a number that was asked about, up to the number ``last``."""

    last: Count
    lost: bool
    changes: Annotated[list[Change], Field(max_length=protocol.MAX_CHANGES)]


class Held(Answer):
    """A durable process."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
    command: (
        Annotated[str, Field(max_length=_MAX_COMMAND)]
        | Annotated[
            list[Annotated[str, Field(max_length=_MAX_COMMAND)]], Field(max_length=_MAX_COMMAND)
        ]
    )
    cwd: PathText
    user: Text
    started: Seconds
    pid: Annotated[int, Field(ge=1, le=1 << 31)] | None
    rows: Annotated[int, Field(ge=0, le=1000)]
    columns: Annotated[int, Field(ge=0, le=1000)]
    state: Literal["running", "ended", "lost"]
    exit_code: Annotated[int, Field(ge=0, le=255)] | None
    signal: Annotated[int, Field(ge=1, le=64)] | None
    ended: Seconds | None
    input_open: bool
    output: Span
    stdout: Span
    stderr: Span

    @model_validator(mode="after")
    def _is_possible(self) -> Held:
        known = [how for how in (self.exit_code, self.signal) if how is not None]
        if len(known) != (1 if self.state == "ended" else 0):
            raise ValueError("exactly what has ended has one exit code or signal")
        if (self.ended is not None) != (self.state == "ended"):
            raise ValueError("exactly what has ended has a time of its end")
        if bool(self.rows) != bool(self.columns):
            raise ValueError("a terminal has rows and columns")
        return self


class HeldPage(Answer):
    """Some processes, and after how many the next page begins."""

    processes: Annotated[list[Held], Field(max_length=protocol.MAX_ENTRIES)]
    next: Count | None


class Piece(Answer):
    """Bytes of a stream that come in the next frame."""

    offset: Count
    dropped: Count
    size: Annotated[int, Field(ge=0, le=protocol.MAX_BYTES)]


class Followed(Answer):
    """One thing that a followed stream says: a piece, or its end."""

    offset: Count | None = None
    dropped: Count | None = None
    size: Annotated[int, Field(ge=0, le=protocol.MAX_BYTES)] | None = None
    end: Count | None = None
    process: Held | None = None

    def piece(self) -> Piece:
        """The piece that it is.

        Raises:
            GuestMisbehaved: it is none.
        """
        return answer({"ok": self.model_dump(exclude_none=True)}, Piece)


class Taken(Answer):
    """How much input a process was given in all."""

    taken: Count


class Nothing(Answer):
    """Done; there is nothing to say."""


class _Problem(Answer):
    code: Text
    message: Annotated[str, Field(max_length=8 * _MAX_TEXT)]
    hint: Annotated[str, Field(max_length=8 * _MAX_TEXT)] | None = None
    details: dict[str, Any] = {}


A = TypeVar("A", bound=Answer)


def parse(payload: bytes) -> dict[str, Any]:
    """A JSON frame as an object.

    Raises:
        GuestMisbehaved: it is none.
    """
    try:
        said = pydantic_core.from_json(payload, allow_inf_nan=False)
    except ValueError as exc:
        raise GuestMisbehaved("the agent inside sent something that is not JSON") from exc
    if not isinstance(said, dict):
        raise GuestMisbehaved("the agent inside sent JSON that is no object")
    return said


def answer(said: dict[str, Any], kind: type[A]) -> A:
    """The good answer in an object, or the error that it is.

    Raises:
        GuestMisbehaved: it is neither, or the error is the agent's own.
        RunToolsError: the error that it names.
    """
    if "error" in said:
        raise problem(said)
    try:
        return kind.model_validate(said.get("ok"))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise GuestMisbehaved(
            f"the agent inside answered out of bounds: {where} {first['msg']}"[:_MAX_TEXT]
        ) from exc


def problem(said: dict[str, Any]) -> RunToolsError:
    """The error that an answer or the end of a body names."""
    try:
        named = _Problem.model_validate(said.get("error"))
    except ValidationError:
        return GuestMisbehaved("the agent inside sent an error that is none")
    message = named.message[:_MAX_TEXT]
    kind = _ERRORS.get(named.code)
    if kind is None:
        return GuestMisbehaved(
            f"the agent inside failed: {named.code[:64]}: {message}", hint=_cut(named.hint)
        )
    return kind(message, hint=_cut(named.hint), details=_plain(named.details))


def _cut(text: str | None) -> str | None:
    return text[:_MAX_TEXT] if text else None


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in list(details.items())[:_MAX_DETAILS]:
        if isinstance(value, str):
            kept[name[:64]] = value[:_MAX_TEXT]
        elif isinstance(value, bool) or (isinstance(value, int) and abs(value) < 1 << 62):
            kept[name[:64]] = value
        elif name == "ports" and isinstance(value, list):
            kept[name] = [n for n in value[:_MAX_PORTS] if type(n) is int and 0 < n < 1 << 16]
    return kept
