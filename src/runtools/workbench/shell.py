"""``bash``: commands in a shell that keeps its folder and environment between calls.

Each command is a durable process of the sandbox. It starts from what the last one left behind and leaves
the same behind itself, in a file of the conversation; it may run on when the call has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing

from pydantic import Field, model_validator

from runtools.errors import DeadlineExceeded, NotFound, ProcessEnded, SandboxPaused
from runtools.sdk.concurrency import async_farewell
from runtools.sdk.processes import AsyncProcess
from runtools.workbench.bench import Bench
from runtools.workbench.cut import cut
from runtools.workbench.tool import Correctable, Parameters, Tool

DEFAULT_SECONDS, MAX_SECONDS = 120, 3600
_KILL_SECONDS = 10.0
_ROOM_SECONDS = 60.0  # as long as any other call waits for it
_READ_BYTES = 8 * 1024 * 1024

# $1: the command, $2: the file of the conversation, $3: whether what it leaves is kept. What the shell
# cannot take up again is left out, and what every process begins with and this one has let go of is let go
# of again; of commands side by side, the first that changes something leaves what the next has. Who has
# changed nothing writes nothing, and who has does so only where the file still says what it began with,
# under a lock: or one that ends in the same moment would take back what another has left.
_SHELL = r"""
rt_given=$(compgen -e | grep -vxE '_|PWD|OLDPWD|SHLVL')
rt_state() {
    declare -px | grep -vE '^declare -[a-z]*r|^declare -x (_|PWD|OLDPWD|SHLVL)='
    compgen -e | grep -vxFf - <(printf '%s\n' "$rt_given") | sed 's/^/unset -v /'
    printf 'cd -- %q\n' "$PWD"
}
rt_kept=$2
mkdir -p "${rt_kept%/*}"
[ -f "$rt_kept" ] || {
    rt_state >"$rt_kept.$$" && ln "$rt_kept.$$" "$rt_kept"
    rm -f "$rt_kept.$$"
} 2>/dev/null
set -- "$1" "$2" "$3" "$(cat "$rt_kept")"
eval "$4" 2>/dev/null
rt_command=$1 rt_kept=$2 rt_keeps=$3 rt_began=$4
set --
rt_leave() {
    local code=$?
    if [ -n "$rt_keeps" ] && [ "$(rt_state)" != "$rt_began" ]; then
        (
            flock 9 && [ "$(cat "$rt_kept")" = "$rt_began" ] &&
                rt_state >"$rt_kept.$$" && mv -f "$rt_kept.$$" "$rt_kept" || rm -f "$rt_kept.$$"
        ) 9>>"$rt_kept.lock"
    fi 2>/dev/null
    exit "$code"
}
trap rt_leave EXIT
eval "$rt_command"
"""


class BashParameters(Parameters):
    """A command to run, or a process to come back to."""

    command: str | None = Field(
        None, min_length=1, max_length=200_000, description="The command line to run with bash."
    )
    background: bool = Field(
        False,
        description="Return at once and leave the command running; the result has its process_id.",
    )
    process_id: str | None = Field(
        None, description="Instead of a command: a process that was left running, to come back to."
    )
    offset: int = Field(
        0,
        ge=0,
        description="With process_id: show its output from this byte on, as a result named it.",
    )
    stop: bool = Field(False, description="With process_id: end it and all that it has started.")
    timeout_seconds: int = Field(
        DEFAULT_SECONDS,
        ge=1,
        le=MAX_SECONDS,
        description="A command is killed after this time; with process_id: how long to wait for its end.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> BashParameters:
        if (self.command is None) == (self.process_id is None):
            raise ValueError("give either command or process_id")
        if self.command is not None and (self.stop or self.offset):
            raise ValueError("stop and offset go with process_id")
        return self


async def _bash(bench: Bench, given: BashParameters) -> str:
    if given.process_id is not None:
        return await _come_back(bench, given.process_id, given)
    assert given.command is not None  # noqa: S101 - the parameters were checked
    words = [
        "bash",
        "-c",
        _SHELL,
        "bash",
        given.command,
        bench.file("shell"),
        "" if given.background else "1",
    ]
    process = await bench.sandbox.processes.start(words, keep_input=False, process_id=bench.act)
    if given.background:
        return f"process_id: {process.id} (running)"
    if await _follow(bench, process, given.timeout_seconds):
        return await _report(bench, process, 0)
    await _end(process)
    said = await _report(bench, process, 0)
    return (
        f"{said}\n[killed after {given.timeout_seconds} s. Give a longer timeout_seconds, "
        "or background: true to leave it running]"
    )


async def _follow(bench: Bench, process: AsyncProcess, seconds: float) -> bool:
    """Whether it ended in that time; what it writes meanwhile is handed on. Who is left ends it."""
    try:
        async with asyncio.timeout(seconds), aclosing(process.follow()) as pieces:
            async for piece in pieces:
                if bench.on_output is not None:
                    bench.on_output(piece)
    except TimeoutError:
        return False
    except asyncio.CancelledError:
        if bench.act is None:
            await async_farewell(process.kill)
        raise
    return True


async def stop(bench: Bench) -> None:
    """End the command of a call that was left; where it has not begun, it does not begin any more."""
    if bench.act is not None:
        await bench.sandbox.processes.end(bench.act)


async def _come_back(bench: Bench, process_id: str, given: BashParameters) -> str:
    try:
        process = await bench.sandbox.processes.get(process_id)
        try:
            running = process.state == "running"
        except SandboxPaused:  # nobody knows: who comes back wakes it, as who runs a command does
            await bench.sandbox.resume(timeout_seconds=_ROOM_SECONDS)
            running = (await process.refresh()).state == "running"
    except NotFound:
        raise Correctable(f"there is no process {process_id[:80]!r} in the sandbox") from None
    if given.stop:
        await _end(process)
    elif running:
        with contextlib.suppress(DeadlineExceeded):
            await process.wait(given.timeout_seconds)
    return await _report(bench, process, given.offset)


async def _end(process: AsyncProcess) -> None:
    with contextlib.suppress(ProcessEnded):
        await process.kill()
    with contextlib.suppress(DeadlineExceeded):
        await process.wait(_KILL_SECONDS)


async def _report(bench: Bench, process: AsyncProcess, offset: int) -> str:
    """What it has written, and how it stands."""
    await process.refresh()
    span = process.view.output
    begin = max(offset, span.kept_from, span.end - _READ_BYTES)
    written = await process.output(begin) if begin < span.end else b""
    lost = f"[bytes {offset} to {begin} are not shown]\n" if begin > offset else ""
    again = f"bash with process_id {process.id!r} and an offset (bytes) shows more"
    text = lost + cut(written.decode(errors="replace"), bench.max_characters, again)
    parts = [text.rstrip("\n")] if text.strip() else []
    return "\n".join([*parts, _stands(process)])


def _stands(process: AsyncProcess) -> str:
    view = process.view
    if view.state == "running":
        return f"[{process.id} is still running; its output ends at byte {view.output.end} so far]"
    if view.state == "lost":
        return "[it is gone, and nobody saw how it ended]"
    if view.signal is not None:
        return f"[ended by signal {view.signal}]"
    return f"[exit code {view.exit_code}]"


BASH = Tool(
    "bash",
    "Run a command in the sandbox, a Linux machine where you are root. The working folder (at first "
    "/workspace) and exported variables are kept between calls, but not those of background commands, nor "
    "after exec or a trap on EXIT; there is no input and no terminal. Returns stdout and stderr as they "
    "came, then the exit code. Long output is cut in the middle. For servers and other things that do not "
    "end use background: true, then process_id to look at or stop it.",
    BashParameters,
    _bash,
    loses=True,
)
