"""``runtools sandbox exec``"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import output
from runtools.cli.output import Json
from runtools.cli.sandbox import options, room
from runtools.cli.sandbox.interrupts import passing_on
from runtools.cli.session import Ref, connected, flag
from runtools.errors import (
    FileForbidden,
    FileMissing,
    GuestUnreachable,
    OutcomeUnknown,
    RunToolsError,
    SandboxPaused,
    Unavailable,
)

if TYPE_CHECKING:
    from runtools.sdk.shapes import ExecResult

PLATFORM_FAILED = 125
FORBIDDEN = 126
NOT_FOUND = 127
TIMED_OUT = 124
_SILENT_SECONDS = 3.0
_DEFAULT_SECONDS = 30.0
_INTERRUPTED = 130


def exec_(
    ref: Ref,
    argv: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARGV...", help="The command, after --; passed unchanged.", show_default=False
        ),
    ] = None,
    shell: Annotated[
        str | None,
        typer.Option("--shell", "-c", metavar="LINE", help="Run a line for a shell instead."),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help="Repeatable.")
    ] = None,
    cwd: Annotated[
        str, typer.Option("--cwd", "-w", metavar="PATH", help="Where it starts.")
    ] = "/workspace",
    user: Annotated[
        str, typer.Option("--user", "-u", metavar="NAME", help="Who it runs as.")
    ] = "root",
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Kill it after so long.", show_default="30"),
    ] = None,
    detach: Annotated[
        bool, flag("--detach", "-d", help="Leave it running; prints the process id.")
    ] = False,
    no_stdin: Annotated[
        bool, flag("--no-stdin", "-n", help="Do not forward a piped stdin.")
    ] = False,
    process_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Its name: asked for again by it, it is not run again."),
    ] = None,
    json: Json = False,
) -> None:
    """Run a command in a sandbox, and end as it ends.

    A piped stdin is forwarded. A paused sandbox is woken. With --detach it has no stdin and no time limit,
    and `ps`, `logs` and `kill` take the process id.

    Ctrl-C (also TERM and HUP) goes to the command and all that it started; a second one kills it.

    Exit code: the command's; 128 + n: signal n killed it; 124: time was up; 125: the platform failed;
    126: its program may not be run; 127: there is no such program.
    """
    command = _command(argv, shell)
    variables = options.pairs("--env", env)
    if detach and timeout is not None:
        raise typer.BadParameter("a detached command has no --timeout")
    if detach and process_id is not None:
        raise typer.BadParameter("a detached command is given its id")
    seconds = _DEFAULT_SECONDS if timeout is None else timeout
    try:
        if detach:
            _leave(ref, command, variables, cwd, user)
            return
        stdin = None if no_stdin else _piped()
        result = _run(ref, command, variables, cwd, user, seconds, stdin, process_id)
        if output.is_json():
            output.item(result)
        else:
            _hand_on(result)
        code = exit_code(result)
    except RunToolsError as error:
        output.fail(error)
        code = _failed_with(error)
    except KeyboardInterrupt:
        output.note(
            f"runtools: left; if {ref} could not be told, its command is killed when time is up"
        )
        code = _INTERRUPTED
    raise typer.Exit(code)


def _failed_with(error: RunToolsError) -> int:
    """As a shell ends for a program that it cannot run; for all else the platform's own."""
    if "program" in error.details and isinstance(error, FileMissing):
        return NOT_FOUND
    if "program" in error.details and isinstance(error, FileForbidden):
        return FORBIDDEN
    return PLATFORM_FAILED


def _leave(ref: str, command: str | list[str], env: dict[str, str], cwd: str, user: str) -> None:
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
        start = partial(
            sandbox.processes.start, command, env=env, cwd=cwd, user=user, keep_input=False
        )
        process = room.when_there_is_room(sandbox, start)
    output.show(process.view, lambda: process.id)


def _command(argv: list[str] | None, shell: str | None) -> str | list[str]:
    if bool(argv) == (shell is not None):
        raise typer.BadParameter("give either -- ARGV... or --shell LINE")
    return shell if shell is not None else argv or []


def _run(
    ref: str,
    command: str | list[str],
    env: dict[str, str],
    cwd: str,
    user: str,
    timeout: float,
    stdin: bytes | None,
    process_id: str | None,
) -> ExecResult:
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
        if sandbox.state == "creating":
            with output.working(room.progress(sandbox)) as say:
                sandbox.wait_until_running(on_wait=room.telling(say))
        run = partial(
            sandbox.exec,
            command,
            stdin=stdin,
            env=env,
            cwd=cwd,
            user=user,
            timeout_ms=round(timeout * 1000),
        )
        return room.when_there_is_room(sandbox, lambda: _to_its_end(sandbox.id, process_id, run))


def _to_its_end(
    sandbox_id: str, process_id: str | None, run: Callable[..., ExecResult]
) -> ExecResult:
    with passing_on(sandbox_id, process_id) as name:
        try:
            return run(process_id=name)
        except (SandboxPaused, GuestUnreachable, Unavailable):
            output.note(f"runtools: --process-id {name} asks for the same command again")
            raise


def _piped() -> bytes | None:
    """What is piped in; None where a person sits there or nothing can come.

    Of what is too much only as much is read as shows that, so that it is refused at once.
    """
    from runtools.sdk.wire import MAX_STDIN_BYTES  # noqa: PLC0415 - takes longer than most commands

    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return None
    with _explained():
        return sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)


@contextmanager
def _explained() -> Iterator[None]:
    """Say what is being waited for when a pipe stays open and silent."""
    timer = threading.Timer(
        _SILENT_SECONDS, output.note, ["reading standard input; --no-stdin runs without it"]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _hand_on(result: ExecResult) -> None:
    for data, stream in ((result.stdout_bytes, sys.stdout), (result.stderr_bytes, sys.stderr)):
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
    if result.truncated:
        output.note("runtools: the output was longer than is kept; the rest is lost")
    if result.timed_out:
        output.note("runtools: its time was over, it was killed (--timeout gives more)")


def exit_code(result: ExecResult) -> int:
    """The exit code that stands for how a command ended.

    Raises:
        OutcomeUnknown: nobody knows how.
    """
    if result.timed_out:
        return TIMED_OUT
    if result.signal is not None:
        return 128 + result.signal
    if result.exit_code is None:
        raise OutcomeUnknown("the command ran, but how it ended was lost")
    return result.exit_code
