"""Durable processes: commands and terminals that outlive whoever started them, and their output.

Output has byte offsets, counted from the first byte that the process ever wrote. They never change: what
is no longer kept is missing in front, and says so. Bytes are never decoded; a reader may get half a
UTF-8 sequence at the border of a piece.
"""

from __future__ import annotations

import base64
import binascii
import signal as signals
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.inside import WORKSPACE
from runtools.sdk.shapes.sandboxes import EnvName

DEFAULT_KEPT_BYTES: Final = 16 * 1024 * 1024
MAX_INPUT_BYTES: Final = 64 * 1024
"""Of one call of input; longer input is sent in pieces."""
MAX_READ_BYTES: Final = 1024 * 1024
"""Of one read of output."""

MAX_HISTORY: Final = 32
"""Letters in the name of a history."""
HISTORY_PATTERN: Final = rf"^[A-Za-z0-9]{{1,{MAX_HISTORY}}}$"

Stream = Literal["output", "stdout", "stderr"]
"""``output``: both as they came."""

ProcessState = Literal["running", "ended", "lost"]


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as exc:
            raise ValueError(f"no base64: {exc}") from exc
    return value


def _number(value: Any) -> Any:
    if isinstance(value, str) and not value.isdecimal():
        name = value.upper().removeprefix("SIG")
        try:
            return signals.Signals[f"SIG{name}"].value
        except KeyError:
            raise ValueError(f"there is no signal {value!r}") from None
    return value


Octets = Annotated[
    bytes,
    BeforeValidator(_bytes),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), str, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""Bytes; base64 in JSON."""


class TerminalSize(Request, defer_build=True):
    """The size of a terminal in characters."""

    rows: int = Field(24, ge=1, le=1000)
    columns: int = Field(80, ge=1, le=1000)


class ProcessRequest(Request, defer_build=True):
    """A command that is started and left to run: one shell line (``bash -c``) or an argument list."""

    command: str | list[str] = Field(min_length=1)
    process_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.:-]{1,128}$", description="a repeat is answered, not run again"
    )
    env: dict[EnvName, str] = Field(default_factory=dict)
    cwd: str = WORKSPACE
    user: str = "root"
    terminal: TerminalSize | None = Field(
        None, description="run it in a terminal of that size; both streams are then one"
    )
    keep_input: bool = Field(True, description="false: its stdin is /dev/null")
    keep_output_bytes: int = Field(
        DEFAULT_KEPT_BYTES,
        ge=4096,
        le=1 << 30,
        description="of each stream the newest bytes are kept; older ones are dropped, and that is stated",
    )


class OutputSpan(Shape, defer_build=True):
    """Which bytes of a stream can be read: from ``kept_from`` to ``end`` (exclusive)."""

    kept_from: int
    end: int


class Process(Shape, defer_build=True):
    """A durable process.

    It has ended when its own process has, whatever others it left behind; what those write later is
    not its output. Of one that has ended exactly one of exit_code and signal is set. ``lost`` is one
    that is gone and nobody saw how it ended: both are None then.
    """

    id: str
    command: str | list[str]
    cwd: str
    user: str
    pid: int | None = Field(description="inside the sandbox, while it runs")
    terminal: TerminalSize | None
    state: ProcessState
    exit_code: int | None
    signal: int | None
    input_open: bool
    started_at: datetime
    ended_at: datetime | None
    output: OutputSpan
    stdout: OutputSpan
    stderr: OutputSpan
    history: str = Field(
        "",
        description="to which course of its sandbox the offsets belong: another one after a rollback",
    )


class OutputPiece(Shape, defer_build=True):
    """Bytes of a stream that begin at an offset."""

    offset: int
    data: Octets
    dropped: int = Field(0, description="bytes right before the offset that are no longer kept")


class OutputEnd(Shape, defer_build=True):
    """The last item of a followed stream: all of it was given, and nothing will follow."""

    offset: int
    process: Process


class SignalRequest(Request, defer_build=True):
    """A signal, by number or by name (``TERM``, ``SIGTERM``)."""

    signal: Annotated[int, BeforeValidator(_number), Field(ge=1, le=64)] = signals.SIGTERM.value


class InputTaken(Shape, defer_build=True):
    """How many bytes of input a process was given so far in all."""

    taken: int


TERMINAL_PROTOCOL: Final = "runtools.terminal.v1"
TICKET_PREFIX: Final = "runtools.ticket."


class TerminalTicketRequest(Request, defer_build=True):
    """Which pages the ticket is for."""

    origin: str = Field(
        pattern=r"^https?://[^/\s]{1,240}$", description="the page's `location.origin`"
    )


class TerminalTicket(Shape, defer_build=True):
    """Opens a terminal from a browser, once:
    ``new WebSocket(path, [protocol, "runtools.ticket." + ticket])``.
    """

    ticket: str = Field(repr=False)
    path: str
    protocol: str
    expires_at: datetime
