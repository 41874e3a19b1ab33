"""Bringing one machine to the point at which copies of it are worth having.

    boot ─▶ agent answers ─▶ everything has started ─▶ rehearsal ─▶ idle ─▶ quiet ─▶ capture ─▶ end

A copy goes on exactly where this machine stood still. Whatever it had not yet done or read, every copy
would do and read again; whatever it was about to do, every copy does at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TypeVar

from runtools.errors import BuildFailed, GuestUnreachable, RunToolsError
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.driver import Driver, Machine
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.guest.identity import Identity
from runtools.platform.kit.clock import Clock
from runtools.sdk.shapes.inside import ExecRequest

Say = Callable[[str], None]
T = TypeVar("T")

_ANSWER_SECONDS = 300.0
_STARTED_SECONDS = 300.0
_OWN_SECONDS = 600.0
_IDLE_SECONDS = 60.0
_IDLE_SHARE = 0.02
_CONSOLE_LINES = 15
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*\x07?)|[\x00-\x08\x0b-\x1f]")
_REHEARSED = "/workspace/.rehearsal"

# What a first command commonly touches: the shell, the usual tools, Python, a login by SSH.
_COMMANDS: tuple[str | list[str], ...] = (
    ["true"],
    "echo hello && ls -la / /workspace | head -3 && cat /etc/os-release && uname -a && id",
    ["python3", "-c", "import json, subprocess, pathlib"],
    "mkdir -p /run/sshd && /usr/sbin/sshd -t",
)


async def rehearse(
    driver: Driver, machine: Machine, clock: Clock, say: Say, own: Sequence[Sequence[str]] = ()
) -> str:
    """Take a machine that was just booted to where it can be captured.

    Args:
        own: commands of its template that must succeed.

    Returns:
        The token that the agent asks for from now on.

    Raises:
        BuildFailed: it died, did not answer, or did not come up; the message quotes the console.
    """
    guest = GuestClient(lambda: driver.connect(machine), machine.boot_token, clock)
    try:
        return await _or_death(driver, machine, _rehearse(guest, clock, say, own))
    except RunToolsError as exc:
        console = await driver.console(machine, _CONSOLE_LINES)
        last = "\n".join(_CONTROL.sub("", line) for line in console)
        raise BuildFailed(f"{exc.message}\nlast on its console:\n{last}", hint=exc.hint) from exc
    finally:
        await guest.close()


async def _rehearse(
    guest: GuestClient, clock: Clock, say: Say, own: Sequence[Sequence[str]]
) -> str:
    began = clock.monotonic()
    say("booting")
    await _answer(guest, clock)
    say(f"the agent answers after {clock.monotonic() - began:.1f} s")
    await _started(guest, say)
    identity = Identity.make(
        hostname="sandbox", env={}, ssh_keys=(), password_hash=None, fresh=True
    )
    await guest.renew(identity)
    await _touch_all(guest)
    for command in own:
        await _must(guest, list(command))
    say("rehearsed what a first command does")
    await _idle(guest, clock, say)
    await guest.quiesce()
    say(f"quiet after {clock.monotonic() - began:.1f} s")
    return identity.token


async def _answer(guest: GuestClient, clock: Clock) -> None:
    deadline = clock.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            await guest.hello()
        except (GuestUnreachable, OSError) as exc:
            if clock.monotonic() > deadline:
                raise GuestUnreachable(
                    f"no agent answered within {_ANSWER_SECONDS:g} s of the first boot: {exc}"
                ) from exc
            await clock.sleep(0.2)
        else:
            return


async def _started(guest: GuestClient, say: Say) -> None:
    """Wait until the service manager has started all that it was to start."""
    wait = ["systemctl", "is-system-running", "--wait"]
    state = (await guest.exec(_order(wait, _STARTED_SECONDS))).stdout.strip()
    say(f"the system is {state or 'silent'}")
    if state == "degraded":
        failed = await guest.exec(_order(["systemctl", "--failed", "--no-legend", "--plain"]))
        for line in failed.stdout.splitlines():
            say(f"  failed: {line.strip()}")
    elif state != "running":
        raise BuildFailed(f"the system did not come up: it is {state or 'silent'}")


async def _must(guest: GuestClient, command: list[str]) -> None:
    """Run a command without whose success there is nothing worth a copy."""
    done = await guest.exec(_order(command, _OWN_SECONDS))
    if done.exit_code != 0:
        how = "was not done in time" if done.timed_out else f"ended with {done.exit_code}"
        said = _CONTROL.sub("", done.stderr or done.stdout).strip()[-2000:]
        raise BuildFailed(f"{command[0]} {how}: {said or 'it said nothing'}")


async def _touch_all(guest: GuestClient) -> None:
    """Go once through what the platform and a first command will do."""
    for command in _COMMANDS:
        await guest.exec(_order(command))
    await guest.write(new_id("opn"), _REHEARSED, _bytes(b"x" * 4096), 0o644, "replace")
    _, chunks = await guest.read(_REHEARSED, 0, None)
    async for _ in chunks:
        pass
    await guest.stat(_REHEARSED)
    await guest.list("/workspace", 1)
    await guest.remove(new_id("opn"), _REHEARSED, recursive=False)
    await guest.grow_filesystem()
    await guest.stats()


async def _idle(guest: GuestClient, clock: Clock, say: Say) -> None:
    """Wait until the machine does nothing; one that goes on working is taken as it is."""
    deadline = clock.monotonic() + _IDLE_SECONDS
    before = await guest.activity()
    while True:
        await clock.sleep(1.0)
        now = await guest.activity()
        total = max(now.cpu_total_seconds - before.cpu_total_seconds, 0.01)
        busy = (now.cpu_busy_seconds - before.cpu_busy_seconds) / total
        if busy < _IDLE_SHARE:
            return
        if clock.monotonic() > deadline:
            say(f"still {busy:.0%} busy after {_IDLE_SECONDS:g} s: taken as it is")
            return
        before = now


async def _or_death(driver: Driver, machine: Machine, work: Coroutine[None, None, T]) -> T:
    """Do the work, but do not wait for a machine that is dead."""
    working = asyncio.ensure_future(work)
    dying = asyncio.ensure_future(driver.watch(machine))
    try:
        await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        ended = dying.result()
        words = "; ".join(ended.messages) or f"exit code {ended.code}, signal {ended.signal}"
        raise BuildFailed(f"the machine ended during its first boot: {words}")
    finally:
        for task in (working, dying):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({working, dying})


def _order(command: str | list[str], seconds: float = 60.0) -> ExecRequest:
    return ExecRequest(
        command=command, cwd="/", timeout_ms=int(seconds * 1000), process_id=new_id("prc")
    )


async def _bytes(data: bytes) -> AsyncIterator[bytes]:
    yield data
