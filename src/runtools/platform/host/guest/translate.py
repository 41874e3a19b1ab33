"""Between what users see and what goes over the wire to a guest."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Any, Literal

from runtools.errors import GuestMisbehaved, InvalidRequest
from runtools.guest import protocol
from runtools.platform.host.guest import wire
from runtools.platform.host.guest.identity import Evidence, Identity
from runtools.sdk.shapes.inside import ExecRequest, ExecResult, FileChange, Listing, Stats
from runtools.sdk.shapes.processes import OutputSpan, Process, TerminalSize


def order(identity: Identity, now: float) -> dict[str, Any]:
    """The request that renews a machine."""
    wanted: dict[str, Any] = {
        "do": "renew",
        "fresh": identity.fresh,
        "nonce": identity.nonce,
        "clock": now,
        "entropy": base64.b64encode(identity.entropy).decode(),
    }
    if identity.fresh:
        wanted |= {
            "token": identity.token,
            "machine_id": identity.machine_id,
            "hostname": identity.hostname,
            "host_keys": {
                kind: {"private": key.private, "public": key.public}
                for kind, key in identity.host_keys.items()
            },
            "env": dict(identity.env),
            "ssh_keys": list(identity.ssh_keys),
            "password_hash": identity.password_hash,
        }
    return wanted


def stdin(request: ExecRequest) -> bytes:
    """What a command is to read.

    Raises:
        InvalidRequest: it is no base64, or too much.
    """
    text = request.stdin or ""
    if request.stdin_encoding == "utf-8":
        data = text.encode()
    else:
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error as exc:
            raise InvalidRequest(f"stdin is no base64: {exc}") from exc
    if len(data) > protocol.MAX_STDIN:
        raise InvalidRequest(
            f"stdin has {len(data)} bytes; at most {protocol.MAX_STDIN} are taken",
            hint="write a file and let the command read it",
        )
    return data


def result(process_id: str, ran: wire.Ran, output: bytes) -> ExecResult:
    """How a command ended; base64 for both streams when one of them is not UTF-8."""
    if len(output) != ran.stdout + ran.stderr:
        raise GuestMisbehaved("the agent inside sent less output than it said")
    out, err = output[: ran.stdout], output[ran.stdout :]
    encoding: Literal["utf-8", "base64"] = "utf-8"
    try:
        stdout, stderr = out.decode(), err.decode()
    except UnicodeDecodeError:
        encoding = "base64"
        stdout, stderr = base64.b64encode(out).decode(), base64.b64encode(err).decode()
    return ExecResult(
        process_id=process_id,
        stdout=stdout,
        stderr=stderr,
        encoding=encoding,
        exit_code=ran.exit_code,
        signal=ran.signal,
        duration_ms=ran.duration_ms,
        timed_out=ran.timed_out,
        truncated=ran.truncated,
    )


def listing(said: wire.Entries) -> Listing:
    """Entries as users see them."""
    return Listing(entries=[e.shape() for e in said.entries], truncated=said.truncated)


def changes(said: wire.Changes, path: str, after: int | None) -> list[FileChange]:
    """What changed below a watched folder, as users see it; where something was lost only that."""
    if said.lost:
        return [FileChange(id=said.last, kind="overflow", path=path, is_directory=True)]
    if after is None:
        return [FileChange(id=said.last, kind="armed", path=path, is_directory=True)]
    if said.last != after + len(said.changes):
        raise GuestMisbehaved("the agent inside numbered changes of files out of order")
    return [
        FileChange(
            id=number, kind=one.kind, path=one.path, source=one.source, is_directory=one.folder
        )
        for number, one in enumerate(said.changes, after + 1)
    ]


def process(held: wire.Held) -> Process:
    """A process as users see it."""
    size = TerminalSize(rows=held.rows, columns=held.columns) if held.rows else None
    return Process(
        id=held.id,
        command=held.command,
        cwd=held.cwd,
        user=held.user,
        pid=held.pid,
        terminal=size,
        state=held.state,
        exit_code=held.exit_code,
        signal=held.signal,
        input_open=held.input_open,
        started_at=datetime.fromtimestamp(held.started, UTC),
        ended_at=None if held.ended is None else datetime.fromtimestamp(held.ended, UTC),
        output=_span(held.output),
        stdout=_span(held.stdout),
        stderr=_span(held.stderr),
    )


def _span(said: list[int]) -> OutputSpan:
    return OutputSpan(kept_from=said[0], end=said[1])


def evidence(renewed: wire.Renewed) -> Evidence:
    """What the gate looks at."""
    return Evidence(
        nonce=renewed.nonce,
        machine=renewed.machine,
        clock=renewed.clock,
        reseeded=renewed.reseeded,
        machine_id=renewed.machine_id,
        hostname=renewed.hostname,
        host_keys={kind: said or "" for kind, said in renewed.host_keys.items()},
        skipped=tuple(renewed.skipped),
    )


def stats(seen: wire.Measured, now: datetime) -> Stats:
    """Stats as users see them, measured now by the host's clock."""
    return Stats(
        cpu_percent=seen.cpu_percent,
        memory_used_bytes=seen.memory_used,
        memory_total_bytes=seen.memory_total,
        disk_used_bytes=seen.disk_used,
        disk_total_bytes=seen.disk_total,
        uptime_seconds=seen.uptime,
        processes=seen.processes,
        listening_ports=seen.ports,
        measured_at=now,
    )
