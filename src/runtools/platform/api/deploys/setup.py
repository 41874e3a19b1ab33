"""Running a standing sandbox's `setup`: its commands one after another, each exactly once.

Each is a durable process with an id of its own, so that who goes on after a crash finds it where it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtools.errors import SandboxPaused, SetupFailed
from runtools.platform.api.calls import Call
from runtools.platform.api.deploys.job import Job
from runtools.platform.api.guests import store as guests
from runtools.platform.api.sandboxes import inside
from runtools.platform.api.sandboxes.tables import Record
from runtools.platform.core.ports.host import Host
from runtools.sdk.shapes.definitions import SandboxDefinition
from runtools.sdk.shapes.processes import MAX_READ_BYTES, Process, ProcessRequest

SETUP_SECONDS = 3600.0
_LOOK_MS = 5_000
_TOLD_BYTES = 4_000
_SHORTEST_HIDDEN = 4
_KILL = 9


async def set_up(job: Job, call: Call, record: Record, wanted: SandboxDefinition) -> None:
    """Run every command to its end.

    Raises:
        SetupFailed: one failed, or all together took too long.
        QuotaExceeded: somebody paused it meanwhile, and its org runs as much as it may.
    """
    clock = job.platform.clock
    deadline = clock.monotonic() + SETUP_SECONDS
    for n, line in enumerate(wanted.setup, 1):
        request = ProcessRequest(command=line, process_id=f"setup-{n}", keep_input=False)
        while True:
            # Starting it again is how it is woken, should the sandbox have been paused meanwhile.
            host, _ = await inside.enter(call, record.id)
            process = await _looked(host, record.id, request)
            if process is not None and process.state != "running":
                break
            await job.check()  # what it has made goes with the sandbox
            if clock.monotonic() > deadline:
                if process is None:
                    raise SetupFailed(
                        f"setup command {n} took too long: its sandbox was paused again and again",
                        hint="nobody should pause it meanwhile, nor its host's disk be full; deploy again",
                    )
                await host.signal_process(record.id, process.id, f"{process.id}-kill", _KILL)
                process = await host.wait_process(record.id, f"setup-{n}", _LOOK_MS)
                raise await _failed(job, host, record, process, n, "took too long")
        if process.exit_code != 0:
            raise await _failed(job, host, record, process, n, _how(process))


async def _looked(host: Host, sandbox_id: str, request: ProcessRequest) -> Process | None:
    """Start it unless it was, and wait a moment for its end. None: the sandbox was paused meanwhile."""
    try:
        process = await host.start_process(sandbox_id, request)
        return await host.wait_process(sandbox_id, process.id, _LOOK_MS)
    except SandboxPaused:
        return None


def _how(process: Process) -> str:
    if process.state == "lost":
        return "was lost: the sandbox lost its memory meanwhile"
    if process.signal is not None:
        return f"was ended by signal {process.signal}"
    return f"ended with exit code {process.exit_code}"


async def _failed(
    job: Job, host: Host, record: Record, process: Process, n: int, how: str
) -> SetupFailed:
    """What is told of it, without the values that the sandbox was given to keep."""
    guest = await job.platform.db.read(guests.of, job.platform.vault, record.id)
    # Read by so much more that no value begins before what is read and ends in what is told.
    longest = max((len(value.encode()) for value in guest.env.values()), default=0)
    wanted = min(_TOLD_BYTES + longest, MAX_READ_BYTES)
    start = max(process.output.kept_from, process.output.end - wanted)
    piece = await host.read_output(record.id, process.id, "output", start, wanted)
    output = hidden(piece.data.decode(errors="replace"), guest.env.values())[-_TOLD_BYTES:]
    line = hidden(str(process.command), guest.env.values())
    return SetupFailed(
        f"setup command {n} {how}: {line[:200]}",
        hint="correct it and deploy again; what stood before stands as it did",
        details={"output": output},
    )


def hidden(text: str, values: Iterable[str]) -> str:
    """The text without those values; the longest first, for one may be a part of another."""
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_HIDDEN:
            text = text.replace(value, "***")
    return text
