"""``runtools sandbox shell``"""

from __future__ import annotations

import os
import select
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import output
from runtools.cli.sandbox import options, processes, terminal
from runtools.cli.sandbox.inside import PLATFORM_FAILED
from runtools.cli.sandbox.room import telling, when_there_is_room
from runtools.cli.session import Ref, acting, connected
from runtools.errors import InvalidRequest, RunToolsError
from runtools.sdk import settings

if TYPE_CHECKING:
    from runtools.cli.sandbox.viewer import Viewer
    from runtools.sdk.sync.processes import Process

_SHOWN_AGAIN = 64 * 1024  # bytes of what was drawn before, to one who comes back


def shell(
    ref: Ref,
    command: Annotated[
        str | None,
        typer.Option("--command", "-c", metavar="LINE", help="Run this instead of a login shell."),
    ] = None,
    attach: Annotated[
        str | None, typer.Option(metavar="PROCESS", help="Come back to one that was left.")
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
) -> None:
    """Open a terminal in a sandbox, and end as it ends.

    Enter ~ . detaches: the shell goes on, and --attach comes back. It outlives broken connections, pauses
    and restarts of the platform. A paused sandbox is woken.

    Exit code: the shell's; 128 + n: signal n killed it; 0: detached; 125: the platform failed.
    """
    if command is not None and attach is not None:
        raise typer.BadParameter("give --command or --attach, not both")
    try:
        code = _run(ref, command, attach, options.pairs("--env", env), cwd, user)
    except RunToolsError as error:
        output.fail(error)
        code = PLATFORM_FAILED
    raise typer.Exit(code)


def _run(
    ref: str, command: str | None, attach: str | None, env: dict[str, str], cwd: str, user: str
) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest(
            "a shell needs a terminal, and this is none",
            hint=f"runtools sandbox exec {ref} -- … runs a command without one",
        )
    from runtools.sdk.shapes import TerminalSize  # noqa: PLC0415 - takes longer than most commands

    rows, columns = terminal.size(sys.stdin.fileno())
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
        sandbox.wait_until_running()
        if attach is not None:
            if sandbox.state == "paused":  # the first size that it is told would wake it, too
                with output.working(f"waking {ref}") as say:
                    sandbox.resume(on_wait=telling(say))
            process = sandbox.processes.get(attach)
            if process.view.terminal is None:
                raise InvalidRequest(
                    f"{process.id} has no terminal",
                    hint=f"runtools sandbox logs {ref} {process.id} --follow shows its output",
                )
        else:
            start = partial(
                sandbox.processes.start,
                ["bash", "-l"] if command is None else command,
                env={"TERM": settings.terminal_kind(), **env},
                cwd=cwd,
                user=user,
                terminal=TerminalSize(rows=rows, columns=columns),
            )
            process = when_there_is_room(sandbox, start)
    return _view(ref, sandbox.id, process)


def _view(ref: str, sandbox_id: str, process: Process) -> int:
    from runtools.cli.sandbox.viewer import Viewer  # noqa: PLC0415 - loads a WebSocket library

    back = f"runtools sandbox shell {ref} --attach {process.id}"
    span = process.view.output
    offset = max(span.kept_from, span.end - _SHOWN_AGAIN)
    screen = terminal.Screen(sys.stdout.fileno())
    path = f"/v1/sandboxes/{sandbox_id}/processes/{process.id}/terminal"
    known = process.view.history
    viewer = Viewer(acting(), path, offset, known, draw=screen.write, say=screen.say)
    ended = False
    try:
        with terminal.raw(sys.stdin.fileno()):
            try:
                ended = _talk(viewer)
            finally:
                viewer.close()
                if not ended:
                    screen.sober()
    except RunToolsError:
        output.note(f"\nruntools: the shell may still run; {back} comes back")
        raise
    if viewer.ended is not None:
        return processes.exit_code(viewer.ended)
    output.note(f"\nruntools: detached, it goes on; {back} comes back")
    return 0


def _talk(viewer: Viewer) -> bool:
    """Hand keys and sizes on until the process has ended (True) or is left (False)."""
    keys, escape = sys.stdin.fileno(), terminal.Escape()
    resized, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGWINCH, lambda *_: None)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        viewer.begin()
        viewer.resize(*terminal.size(keys))
        while viewer.ended is None:
            sources = [viewer.wake_fd, resized, *([keys] if viewer.hungry else [])]
            ready, _, _ = select.select(sources, [], [])
            if viewer.wake_fd in ready:
                viewer.step()
            if resized in ready:
                os.read(resized, 4096)
                viewer.resize(*terminal.size(keys))
            if keys in ready:
                typed = _read(keys)
                viewer.type(escape.feed(typed))
                if escape.detached or not typed:
                    return False
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        os.close(resized)
        os.close(waker)
    return True


def _read(keys: int) -> bytes:
    try:
        return os.read(keys, 4096)
    except OSError:
        return b""  # the terminal is gone
