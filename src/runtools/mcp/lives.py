"""Tools that make sandboxes, and act on them as wholes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from pydantic import Field

from runtools.errors import DeadlineExceeded, SandboxStopped
from runtools.sdk.client import AsyncRunTools
from runtools.sdk.sandbox import AsyncSandbox
from runtools.workbench.tool import Parameters, Tool

_MAX_LISTED = 100
_ROOM_SECONDS = 60.0

Ref = Field(min_length=1, max_length=100, description="The sandbox: its id or name.")
Name = Field(None, max_length=63, description="Lower-case letters, digits and hyphens.")


class ListParameters(Parameters):
    """Nothing is asked."""


class CreateParameters(Parameters):
    """What sandbox is wanted."""

    name: str | None = Name
    template: str | None = Field(
        None, max_length=100, description="What it is made from; default: the platform's own."
    )
    idle_timeout_seconds: int | None = Field(
        None, ge=0, description="It is paused when nobody has used it for so long; 0: never."
    )
    internet: bool = Field(True, description="Whether it reaches the internet.")


class SandboxParameters(Parameters):
    """Which sandbox."""

    sandbox: str = Ref


class ForkParameters(SandboxParameters):
    """Which sandbox, and how many copies."""

    count: int = Field(1, ge=1, le=16, description="How many copies.")
    name: str | None = Field(
        None, max_length=60, description="The copy's name; of several the stem: name-1, name-2 …"
    )


class SnapshotParameters(SandboxParameters):
    """Which sandbox, and what its present state is called."""

    name: str | None = Name


class RollbackParameters(SandboxParameters):
    """Which sandbox, and back to what."""

    to: str = Field(min_length=1, max_length=100, description="The snapshot: its id or name.")


async def _list(rt: AsyncRunTools, _: ListParameters) -> str:
    lines: list[str] = []
    async with aclosing(rt.sandboxes.list()) as found:
        async for sandbox in found:
            if len(lines) == _MAX_LISTED:
                lines.append("[there are more]")
                break
            lines.append(_line(sandbox))
    return "\n".join(lines) or "there is no sandbox; sandbox_create makes one"


async def _create(rt: AsyncRunTools, given: CreateParameters) -> str:
    wanted: dict[str, Any] = given.model_dump(exclude_none=True)
    return await _come_up([await rt.sandboxes.create(**wanted, wait_for_ready=False)])


async def _pause(rt: AsyncRunTools, given: SandboxParameters) -> str:
    return _line(await (await rt.sandboxes.get(given.sandbox)).pause())


async def _resume(rt: AsyncRunTools, given: SandboxParameters) -> str:
    sandbox = await rt.sandboxes.get(given.sandbox)
    return _line(await sandbox.resume(timeout_seconds=_ROOM_SECONDS))


async def _fork(rt: AsyncRunTools, given: ForkParameters) -> str:
    sandbox = await rt.sandboxes.get(given.sandbox)
    return await _come_up(await sandbox.fork(given.count, name=given.name, wait_for_ready=False))


async def _snapshot(rt: AsyncRunTools, given: SnapshotParameters) -> str:
    kept = await (await rt.sandboxes.get(given.sandbox)).snapshot(given.name)
    return f"{kept.id}  {kept.name or '-'}"


async def _rollback(rt: AsyncRunTools, given: RollbackParameters) -> str:
    return _line(await (await rt.sandboxes.get(given.sandbox)).rollback(given.to))


async def _destroy(rt: AsyncRunTools, given: SandboxParameters) -> str:
    sandbox = await rt.sandboxes.get(given.sandbox)
    await sandbox.destroy()
    return f"{sandbox.id} is destroyed"


async def _come_up(made: Sequence[AsyncSandbox]) -> str:
    """Wait for new ones, as long as a client waits for an answer; then say how they stand.

    Raises:
        SandboxStopped: none came to run.
    """
    clock, failed = asyncio.get_running_loop().time, []
    until = clock() + _ROOM_SECONDS
    for sandbox in made:
        try:
            await sandbox.wait_until_running(max(until - clock(), 0))
        except DeadlineExceeded:
            pass  # its line says what it waits for
        except SandboxStopped as stopped:
            failed.append(stopped)
    if len(failed) == len(made):
        raise failed[0]
    return "\n".join(map(_line, made))


def _line(sandbox: AsyncSandbox) -> str:
    line = f"{sandbox.id}  {sandbox.name or '-'}  {sandbox.state}  {sandbox.template}"
    if sandbox.state == "stopped" and sandbox.ending is not None:
        return f"{line}  [{sandbox.ending.reason}]"
    if sandbox.state != "creating":
        return line
    if sandbox.queue is None:
        return f"{line}  [it is still being made: the next tool that uses it waits for it]"
    place = f"place {sandbox.queue.position} in the queue"
    return f"{line}  [it waits for room on its host, {place}, and comes up by itself]"


LIVES: Mapping[str, Tool[AsyncRunTools, Any]] = {
    tool.name: tool
    for tool in (
        Tool(
            "sandbox_list",
            "List the sandboxes: id, name, state, template.",
            ListParameters,
            _list,
            changes=False,
        ),
        Tool(
            "sandbox_create",
            "Make a sandbox, a Linux machine of its own, and wait until it runs, a minute at most. Returns"
            " its id, and its place in the queue where there is no room yet.",
            CreateParameters,
            _create,
        ),
        Tool(
            "sandbox_pause",
            "Put a sandbox to sleep with all its processes. The next tool that uses it wakes it.",
            SandboxParameters,
            _pause,
        ),
        Tool(
            "sandbox_resume",
            "Wake a paused sandbox, before something outside is to find it awake.",
            SandboxParameters,
            _resume,
        ),
        Tool(
            "sandbox_fork",
            "Make copies of a sandbox as it is now, memory and processes included.",
            ForkParameters,
            _fork,
        ),
        Tool(
            "sandbox_snapshot",
            "Keep the present state of a sandbox, for sandbox_rollback.",
            SnapshotParameters,
            _snapshot,
        ),
        Tool(
            "sandbox_rollback",
            "Take a sandbox back to a snapshot. What happened since is lost.",
            RollbackParameters,
            _rollback,
            loses=True,
        ),
        Tool(
            "sandbox_destroy",
            "End a sandbox and remove its disk and snapshots, for good.",
            SandboxParameters,
            _destroy,
            loses=True,
        ),
    )
}
