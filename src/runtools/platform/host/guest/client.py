"""The host's client of a guest agent: operations over pooled connections.

The agent is not trusted and may die at any moment. Everything that it says is checked (`wire`), nothing
waits without a deadline, and what was interrupted is asked again under the same id, so that the agent's
journal answers it: a broken connection is not the end of a command.
"""

from __future__ import annotations

import asyncio
import builtins
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from runtools.errors import GuestMisbehaved, GuestUnreachable, VersionMismatch
from runtools.platform.core.ports.host import FileBody
from runtools.platform.host.guest import commands, translate, wire
from runtools.platform.host.guest.channel import Channel, Connect, Interrupted, Refused, within
from runtools.platform.host.guest.holding import Holding, Share
from runtools.platform.host.guest.identity import Evidence, Identity
from runtools.platform.host.guest.patience import Patience
from runtools.platform.host.guest.pool import Pool
from runtools.platform.host.guest.processes import GuestProcesses
from runtools.platform.host.guest.streams import Body
from runtools.platform.host.guest.through import through
from runtools.platform.kit.clock import Clock, SystemClock
from runtools.sdk.shapes.inside import (
    ExecRequest,
    ExecResult,
    FileChange,
    FileEntry,
    Listing,
    Stats,
)

_TICKS: Final = 100
_EDITS_SINCE: Final = 3  # the version of the protocol that has `edit`

T = TypeVar("T")
A = TypeVar("A", bound=wire.Answer)


@dataclass(frozen=True, slots=True)
class Activity:
    """Signs of life inside.

    Attributes:
        running_execs: commands that run now.
        output_bytes: what all commands ever printed, those left in the background included.
        connections: TCP connections from outside to ports of the sandbox, the agent's left out.
        traffic_bytes: what those carried so far; None where the kernel inside does not tell.
        cpu_busy_seconds, cpu_total_seconds: of all vCPUs together, since boot.
    """

    running_execs: int
    output_bytes: int
    connections: int
    traffic_bytes: int | None
    cpu_busy_seconds: float
    cpu_total_seconds: float


class GuestClient:
    """Speaks to one agent. ``connect`` makes a fresh non-blocking socket to it."""

    def __init__(
        self,
        connect: Connect,
        token: str,
        clock: Clock | None = None,
        patience: Patience | None = None,
        holding: Holding | Share | None = None,
    ) -> None:
        """``holding`` is shared with other clients: those of an org, of a host."""
        self._share = Share(holding or Holding())
        self.cuts: set[Callable[[], None]] = set()  # what breaks off the streams through the agent
        self._patience = patience or Patience()
        self._connect = connect
        self._pool = Pool(connect, token, self._patience)
        self._clock = clock or SystemClock()
        self.processes = GuestProcesses(self._pool, self._patience)

    def hold_in(self, holding: Holding | Share) -> None:
        """What it is to share with other clients from now on."""
        self._share = Share(holding)

    # --- the machine ---

    async def hello(self, seconds: float | None = None) -> Mapping[str, bool | str]:
        """Make sure that the agent answers, once; returns its features.

        Raises:
            GuestUnreachable: it does not.
        """
        channel = await within(
            seconds or self._patience.hello, self._pool.take(fresh=True), "hello"
        )
        assert channel.hello is not None  # noqa: S101 - a channel is greeted when it is opened
        self._pool.give_back(channel)
        return channel.hello.features

    async def renew(self, identity: Identity) -> Evidence:
        """Make the machine who it is to be; asked once, and safe to be asked again.

        Raises:
            GuestUnreachable: it did not answer.
            GuestMisbehaved: it failed, or answered nonsense.
        """
        try:
            renewed = await within(self._patience.op, self._renew(identity), "renew")
        except Refused:
            if not identity.token or self._pool.token == identity.token:
                raise
            # An earlier renewal went through, and only its answer was lost.
            self._pool.token = identity.token
            renewed = await within(self._patience.op, self._renew(identity), "renew")
        if identity.fresh:
            self._pool.token = identity.token
        return translate.evidence(renewed)

    async def activity(self) -> Activity:
        """Signs of life, for the idle timer."""
        seen = await self._ask({"do": "activity"}, wire.Stirring)
        return Activity(
            running_execs=seen.running,
            output_bytes=seen.output,
            connections=seen.connections,
            traffic_bytes=seen.traffic,
            cpu_busy_seconds=seen.busy / _TICKS,
            cpu_total_seconds=seen.total / _TICKS,
        )

    async def stats(self) -> Stats:
        """What the machine says of itself."""
        seen = await self._ask({"do": "stats"}, wire.Measured)
        return translate.stats(seen, self._clock.now())

    async def grow_filesystem(self, size_bytes: int = 0) -> int:
        """Let the file system fill its disk; returns its size.

        With ``size_bytes`` the agent first waits until the kernel inside knows the new size.
        """
        grown = await self._ask({"do": "grow", "bytes": size_bytes}, wire.Grown)
        return grown.bytes

    async def quiesce(self) -> None:
        """Write everything to the disk and leave no connection, before a capture."""
        await self._ask({"do": "quiesce"}, wire.Nothing)
        self._pool.drop_idle()

    def cut_off(self) -> None:
        """Close all connections in the loop's next turn; whoever waits on one gets `GuestUnreachable`."""
        self._pool.close()
        for cut in list(self.cuts):
            cut()

    async def close(self) -> None:
        """Close all connections, and see that they are."""
        self.cut_off()
        await asyncio.sleep(0)

    async def open_port(self, port: int) -> socket.socket:
        """A stream to what listens on a port of the machine; add what breaks it off to `cuts`.

        Raises:
            PortClosed: nothing listens there.
        """
        return await within(
            self._patience.hello, through(self._connect, self._pool.token, port), f"port {port}"
        )

    # --- commands ---

    async def exec(self, request: ExecRequest, env: Mapping[str, str] | None = None) -> ExecResult:
        """Run a command, or get the answer that its process id got before.

        An interrupted connection is made anew and the answer asked for again, until the command's
        timeout and some grace are over.

        Raises:
            OutcomeUnknown: the agent died meanwhile, and nobody saw how the command ended.
            GuestUnreachable: no answer came in time.
            Unavailable: it has ended, and there was no room for what it printed.
        """
        return await commands.run(self._pool, self._share, self._patience, request, env or {})

    async def signal_exec(self, op: str, process_id: str, signal: int) -> None:
        """Signal a running command."""
        wanted = {"do": "exec_signal", "id": op, "exec": process_id, "signal": signal}
        await self._ask(wanted, wire.Nothing)

    # --- files ---

    async def stat(self, path: str) -> FileEntry:
        """One entry."""
        return (await self._ask({"do": "stat", "path": path}, wire.Entry)).shape()

    async def list(self, path: str, depth: int) -> Listing:
        """Entries below a directory."""
        said = await self._ask({"do": "list", "path": path, "depth": depth}, wire.Entries)
        return translate.listing(said)

    async def mkdir(self, op: str, path: str, mode: int) -> FileEntry:
        """Make a directory and its parents."""
        return await self._change(op, "mkdir", path=path, mode=mode)

    async def move(self, op: str, source: str, target: str, overwrite: bool) -> FileEntry:
        """Move."""
        return await self._change(
            op, "move", source=source, target=target, overwrite=overwrite, long=True
        )

    async def copy(self, op: str, source: str, target: str, overwrite: bool) -> FileEntry:
        """Copy."""
        return await self._change(
            op, "copy", source=source, target=target, overwrite=overwrite, long=True
        )

    async def edit(self, op: str, path: str, old: str, new: str, occurrences: int) -> FileEntry:
        """Replace an exact text.

        Raises:
            VersionMismatch: the agent is of a version that knows no edits.
        """
        request = {"do": "edit", "id": op, "path": path, "old": old, "new": new}

        async def act(channel: Channel) -> wire.Entry:
            assert channel.hello is not None  # noqa: S101 - a channel is greeted when it is opened
            if channel.hello.version < _EDITS_SINCE:
                raise VersionMismatch(
                    "the agent inside is of a version without edits",
                    hint="write the file whole, or make a sandbox of a template that is built anew",
                )
            channel.send({**request, "occurrences": occurrences})
            return wire.answer(await channel.receive(), wire.Entry)

        return (await within(self._patience.op, self._pool.repeat(act), "edit")).shape()

    async def chmod(self, op: str, path: str, mode: int) -> FileEntry:
        """Set permission bits."""
        return await self._change(op, "chmod", path=path, mode=mode)

    async def remove(self, op: str, path: str, recursive: bool) -> None:
        """Remove."""
        request = {"do": "remove", "id": op, "path": path, "recursive": recursive}
        await self._ask(request, wire.Nothing, long=True)

    async def read(
        self, path: str, start: int = 0, end: int | None = None
    ) -> tuple[FileBody, AsyncIterator[bytes]]:
        """A file's bytes from start to end (exclusive). The iterator must be run out or closed."""
        request = {"do": "read", "path": path, "start": start, "end": end}
        opened, channel = await self._open_body(request, wire.Opened)
        size = opened.end - opened.start
        wanted = None if end is None else max(end - start, 0)
        if size < 0 or opened.start > start or (wanted is not None and size > wanted):
            self._pool.give_up(channel)
            raise GuestMisbehaved("the agent inside opened another range than was asked for")
        body = FileBody(entry=opened.entry.shape(), start=opened.start, end=opened.end)
        return body, Body(channel, size, self._pool.give_back, exact=True)

    async def write(
        self,
        op: str,
        path: str,
        chunks: AsyncIterator[bytes],
        mode: int | None = None,
        how: Literal["replace", "append"] = "replace",
    ) -> FileEntry:
        """Replace a file as a whole, or append to it; parents are made."""
        request = {"do": "write", "id": op, "path": path, "mode": mode, "how": how}
        return (await self._send_body(request, chunks, wire.Entry)).shape()

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """A file or folder as a tar stream. The iterator must be run out or closed."""
        _, channel = await self._open_body({"do": "download", "path": path}, wire.Packed)
        return Body(channel, 1 << 62, self._pool.give_back, exact=False)

    async def upload(self, op: str, path: str, chunks: AsyncIterator[bytes]) -> Listing:
        """Unpack a tar stream below a folder."""
        request = {"do": "upload", "id": op, "path": path}
        return translate.listing(await self._send_body(request, chunks, wire.Entries))

    async def watch(
        self, scope: str, path: str, recursive: bool, after: int | None, *, wait: bool
    ) -> builtins.list[FileChange]:
        """What changed below a folder after a number; waits for some time where nothing has.

        None: begins to watch, and tells the number at which. See `Host.watch`.
        """
        seconds = self._patience.op / 3 if wait else 0.0
        request = {
            "do": "watch",
            "scope": scope,
            "path": path,
            "recursive": recursive,
            "after": after,
            "wait_ms": round(seconds * 1000),
        }
        clock = asyncio.get_running_loop().time
        began = clock()
        found = translate.changes(await self._ask(request, wire.Changes), path, after)
        if not found and clock() - began < seconds / 2:
            raise GuestMisbehaved("the agent inside did not wait for changes of files")
        return found

    # --- how ---

    async def _change(self, op: str, do: str, *, long: bool = False, **fields: object) -> FileEntry:
        request = {"do": do, "id": op, **fields}
        return (await self._ask(request, wire.Entry, long=long)).shape()

    async def _ask(self, request: Mapping[str, Any], kind: type[A], *, long: bool = False) -> A:
        async def act(channel: Channel) -> A:
            channel.send(request)
            return wire.answer(await channel.receive(), kind)

        seconds = self._patience.long if long else self._patience.op
        return await within(seconds, self._pool.repeat(act), str(request["do"]))

    async def _renew(self, identity: Identity) -> wire.Renewed:
        async def act(channel: Channel) -> wire.Renewed:
            channel.send(translate.order(identity, self._clock.now().timestamp()))
            return wire.answer(await channel.receive(), wire.Renewed)

        channel = await self._pool.take()
        self._pool.drop_idle()  # the agent cuts all others when its token changes
        return await self._pool.once(channel, act)

    async def _open_body(self, request: Mapping[str, Any], kind: type[A]) -> tuple[A, Channel]:
        async def act(channel: Channel) -> tuple[A, Channel]:
            channel.send(request)
            return wire.answer(await channel.receive(), kind), channel

        return await within(
            self._patience.op, self._pool.repeat(act, keep=True), str(request["do"])
        )

    async def _send_body(
        self, request: Mapping[str, Any], chunks: AsyncIterator[bytes], kind: type[A]
    ) -> A:
        """A request with a body: asked again only as long as nothing of the body was taken."""

        async def begin(channel: Channel) -> tuple[dict[str, Any], Channel]:
            channel.send(request)
            return await channel.receive(), channel

        said, channel = await within(
            self._patience.op, self._pool.repeat(begin, keep=True), str(request["do"])
        )

        async def act(channel: Channel) -> A:
            if said.get("go") is True:
                return wire.answer(await channel.send_body(chunks), kind)
            return wire.answer(said, kind)

        try:
            return await self._pool.once(channel, act)
        except Interrupted:
            # The body may have arrived: the journal knows, and says so to the same id.
            return await within(
                self._patience.op, self._pool.repeat(_ask_after(request, kind)), "answer"
            )


def _ask_after(request: Mapping[str, Any], kind: type[A]) -> Callable[[Channel], Awaitable[A]]:
    """Ask for the answer to a request whose body is gone; a go-ahead means it was never done."""

    async def act(channel: Channel) -> A:
        channel.send(request)
        said = await channel.receive()
        if said.get("go") is True:
            raise GuestUnreachable("the connection broke while the body was sent; nothing was done")
        return wire.answer(said, kind)

    return act
