"""What goes on inside a sandbox, on its way to the host: commands, files, stats, console.

Commands and files wake a paused sandbox (the host does) and wait for one still creating (here); stats,
console, get, list and why do neither.
"""

from __future__ import annotations

from runtools.errors import DeadlineExceeded, SandboxStopped, Unauthenticated
from runtools.platform.api.callers.door import BELIEVED_SECONDS
from runtools.platform.api.calls import Call
from runtools.platform.api.sandboxes import acts, rules
from runtools.platform.api.sandboxes.load import load, sleeps, until
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.host import Host
from runtools.sdk.shapes.inside import ExecRequest, ExecResult

BIRTH_SECONDS = 110.0


async def enter(call: Call, ref: str) -> tuple[Host, str]:
    """The host of a sandbox that can be worked in, and the sandbox's id there.

    Raises:
        QuotaExceeded: it sleeps, and its org runs as much as it may.
        Unauthenticated: a run asks, and it has ended while its sandbox was waited for.
    """
    began = call.platform.clock.monotonic()
    record = await living(call, ref)
    if sleeps(record):
        record = await acts.wake(call, record)
    if call.who.kind == "run":
        await _waited(call, record, began)
    return call.platform.hosts.port(record.host_id), record.id


async def _waited(call: Call, record: Record, began: float) -> None:
    """See that a run's sandbox is awake, and that the run still goes on: one that was cancelled meanwhile
    begins nothing in it. Of what waits at the host nobody would hear that.
    """
    platform = call.platform
    if sleeps(record):
        await platform.hosts.port(record.host_id).resume(record.id, new_id("opn"), call.actor)
    if platform.clock.monotonic() - began < BELIEVED_SECONDS:
        return
    if not await platform.door.still_good(call.who):
        raise Unauthenticated(
            f"{call.who.id} has ended, or was let go of, while {record.id} was waited for",
            hint="nothing was done in the sandbox",
        )


async def look_in(call: Call, ref: str) -> tuple[Host, str]:
    """The same for what wakes nothing: one that sleeps is left asleep, whatever its org may have."""
    record = await living(call, ref)
    return call.platform.hosts.port(record.host_id), record.id


async def living(call: Call, ref: str) -> Record:
    """A sandbox that has come to run and not ended; one that sleeps is left alone."""
    record = await load(call.platform, call.org, ref)
    if record.state == "creating":
        record = await until(
            call.platform, record.id, lambda row: row.state != "creating", BIRTH_SECONDS
        )
    if record.state == "creating":
        raise DeadlineExceeded(
            f"{record.id} is still creating",
            hint=f"GET /v1/sandboxes/{record.id} shows its place in the queue; ask again",
            details={"operation": record.operation, "queue": record.queue},
        )
    if record.state == "stopped":
        reason = (record.ending or {}).get("reason", "it was destroyed")
        raise SandboxStopped(
            f"{record.id} has stopped: {reason}",
            hint=f"runtools sandbox why {record.id} tells what ended it",
        )
    return record


async def exec_(call: Call, ref: str, request: ExecRequest) -> ExecResult:
    """Run a command to its end."""
    rules.check_exec(request)
    host, sandbox_id = await enter(call, ref)
    if request.process_id is None:
        request = request.model_copy(update={"process_id": call.op})
    return await host.exec(sandbox_id, request)


async def signal_exec(call: Call, ref: str, process_id: str, signal: int) -> None:
    """Send a signal to a command that runs, or is on its way."""
    rules.check_process_id(process_id)
    host, sandbox_id = await enter(call, ref)
    await host.signal_exec(sandbox_id, process_id, call.op, signal)


async def beside(call: Call, ref: str) -> tuple[Host, Record]:
    """The host of a sandbox that is only looked at."""
    record = await load(call.platform, call.org, ref)
    return call.platform.hosts.port(record.host_id), record
