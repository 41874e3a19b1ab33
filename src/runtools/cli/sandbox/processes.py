"""``runtools sandbox ps``, ``kill``, and the output of a process."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from runtools.cli import lazy, output
from runtools.cli.output import Json
from runtools.cli.sandbox.room import when_there_is_room
from runtools.cli.session import Ref, connected
from runtools.errors import OutcomeUnknown

if TYPE_CHECKING:
    from runtools.cli import sandbox_looks as looks
    from runtools.sdk.shapes import Process
    from runtools.sdk.sync.processes import Process as RemoteProcess
else:
    looks = lazy.module("runtools.cli.sandbox_looks")

Stream = Literal["output", "stdout", "stderr"]

Name = Annotated[str, typer.Argument(metavar="PROCESS", help="Its id; ps lists them.")]


def ps(ref: Ref, json: Json = False) -> None:
    """List the processes of a sandbox that were started to outlive their caller."""
    with connected() as rt:
        found = [process.view for process in rt.sandboxes.get(ref).processes.list()]
    output.show(found, lambda: looks.processes(found))


def kill(
    ref: Ref,
    process: Name,
    signal: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="By name or number.")
    ] = "TERM",
    json: Json = False,
) -> None:
    """Send a signal to a process and all that it started. A paused sandbox is woken."""
    with connected() as rt:
        sent: int | str = int(signal) if signal.isdecimal() else signal
        sandbox = rt.sandboxes.get(ref)
        found = sandbox.processes.get(process)
        view = when_there_is_room(sandbox, partial(found.signal, sent)).view
    output.show(view, lambda: f"{signal} was sent to {view.id}")


class Place(NamedTuple):
    """Where in an output something stands: a number of bytes, of a history."""

    offset: int
    history: str | None


def show_output(ref: str, process: str, place: Place, *, follow: bool, stream: Stream) -> None:
    """Write the output of a process to stdout, byte for byte."""
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
        found = sandbox.processes.get(process)
        if follow:
            if sandbox.state == "paused":
                output.note(
                    f"runtools: {ref} is paused, and its output comes when it goes on;"
                    f" `runtools sandbox resume {ref}` wakes it"
                )
            _follow(found, place, stream)
            return
        dropped: list[int] = []
        offset, history = place
        read = partial(found.output, offset, stream, history=history, on_dropped=dropped.append)
        data = when_there_is_room(sandbox, read)
        if dropped:
            output.note(f"runtools: {sum(dropped)} bytes of this are no longer kept")
        _write(data)


def _follow(process: RemoteProcess, place: Place, stream: Stream) -> None:
    """Write what it writes until it has ended. Who breaks off is told how to go on."""
    offset, history = place

    def tell_dropped(count: int) -> None:
        nonlocal offset
        offset += count
        output.note(f"runtools: {count} bytes before this are no longer kept")

    try:
        for data in process.follow(offset, stream, history=history, on_dropped=tell_dropped):
            _write(data)
            offset += len(data)
    except KeyboardInterrupt:
        known = history or process.history
        output.note(f"runtools: --offset {offset} --history {known} goes on from here")
        raise


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def exit_code(process: Process) -> int:
    """The exit code that stands for how a process ended: its own, or 128 + the signal.

    Raises:
        OutcomeUnknown: nobody knows how.
    """
    if process.signal is not None:
        return 128 + process.signal
    if process.exit_code is None:
        raise OutcomeUnknown(f"{process.id} is gone, and how it ended was lost")
    return process.exit_code
