"""What goes on inside a sandbox: wake it, hold it awake, and hand the call to the guest agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import cached_property
from typing import Literal

from runtools.errors import GuestUnreachable, SandboxPaused
from runtools.platform.core.ports.host import FileBody
from runtools.platform.core.states import State
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts import end
from runtools.platform.host.engine.acts.resume import awake
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.history import History
from runtools.platform.host.engine.journal import Record
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.silence import stopped, unless_put_to_sleep, what_happened
from runtools.platform.host.watching import Watching
from runtools.sdk.shapes.inside import (
    ExecRequest,
    ExecResult,
    FileChange,
    FileEntry,
    Listing,
    Stats,
    StatsHistory,
)

_MAX_CONSOLE_LINES = 10_000


class Inside:
    """The part of the host port that speaks to guests."""

    engine: Engine
    history: History

    @asynccontextmanager
    async def _guest(self, sandbox_id: str) -> AsyncIterator[GuestClient]:
        """The guest of a sandbox that is awake and stays so, as far as we are concerned."""
        box = self.engine.actor(sandbox_id)
        with box.use():
            guest = await awake(box, Why("request", PLATFORM))
            since = box.record
            try:
                async with unless_put_to_sleep(box):
                    yield guest
            except GuestUnreachable as exc:
                raise await what_happened(box, exc, since) from exc

    async def exec(self, sandbox_id: str, request: ExecRequest) -> ExecResult:
        """Run a command."""
        with self.engine.meters.exec() as results:
            async with self._guest(sandbox_id) as guest:
                results.append(await guest.exec(request))
        return results[0]

    async def signal_exec(self, sandbox_id: str, process_id: str, op: str, signal: int) -> None:
        """Signal a running command."""
        async with self._guest(sandbox_id) as guest:
            await guest.signal_exec(op, process_id, signal)

    async def stats(self, sandbox_id: str) -> Stats:
        """What the guest says of itself; of a paused sandbox what it last said."""
        box = self.engine.actor(sandbox_id)
        if box.state is State.STOPPED:
            raise stopped(box)
        if box.state is State.RUNNING and box.record.under_way is None and box.guest is not None:
            since = box.record
            try:
                async with unless_put_to_sleep(box):
                    box.stats = await box.guest.stats()
            except GuestUnreachable as exc:
                told = await what_happened(box, exc, since)
                if not isinstance(told, SandboxPaused):
                    raise told from exc
        if box.stats is None:
            raise GuestUnreachable(
                f"{sandbox_id} is {box.state} and has not been measured yet",
                hint="stats do not wake a sandbox; an exec does",
            )
        return box.stats

    async def stats_history(self, sandbox_id: str) -> StatsHistory:
        """What it took in the last hour."""
        return await self.history.of(self.engine.actor(sandbox_id))

    async def console(self, sandbox_id: str, lines: int) -> list[str]:
        """The last lines of the machine's console."""
        wanted = max(0, min(lines, _MAX_CONSOLE_LINES))
        return await end.console(self.engine.actor(sandbox_id), wanted)

    async def stat(self, sandbox_id: str, path: str) -> FileEntry:
        """One entry."""
        async with self._guest(sandbox_id) as guest:
            return await guest.stat(path)

    async def mkdir(self, sandbox_id: str, op: str, path: str, mode: int) -> FileEntry:
        """Make a directory, parents included."""
        async with self._guest(sandbox_id) as guest:
            return await guest.mkdir(op, path, mode)

    async def move(
        self, sandbox_id: str, op: str, source: str, target: str, overwrite: bool
    ) -> FileEntry:
        """Move within the sandbox."""
        async with self._guest(sandbox_id) as guest:
            return await guest.move(op, source, target, overwrite)

    async def copy(
        self, sandbox_id: str, op: str, source: str, target: str, overwrite: bool
    ) -> FileEntry:
        """Copy within the sandbox."""
        async with self._guest(sandbox_id) as guest:
            return await guest.copy(op, source, target, overwrite)

    async def edit(
        self, sandbox_id: str, op: str, path: str, old: str, new: str, occurrences: int
    ) -> FileEntry:
        """Replace an exact text in a file."""
        async with self._guest(sandbox_id) as guest:
            return await guest.edit(op, path, old, new, occurrences)

    async def chmod(self, sandbox_id: str, op: str, path: str, mode: int) -> FileEntry:
        """Change permission bits."""
        async with self._guest(sandbox_id) as guest:
            return await guest.chmod(op, path, mode)

    async def remove(self, sandbox_id: str, op: str, path: str, recursive: bool) -> None:
        """Remove a file or folder."""
        async with self._guest(sandbox_id) as guest:
            await guest.remove(op, path, recursive)

    async def write(
        self,
        sandbox_id: str,
        op: str,
        path: str,
        chunks: AsyncIterator[bytes],
        mode: int | None,
        how: Literal["replace", "append"],
    ) -> FileEntry:
        """Replace or extend a file."""
        async with self._guest(sandbox_id) as guest:
            return await guest.write(op, path, chunks, mode, how)

    async def upload(
        self, sandbox_id: str, op: str, path: str, chunks: AsyncIterator[bytes]
    ) -> Listing:
        """Unpack a tar stream below a folder."""
        async with self._guest(sandbox_id) as guest:
            return await guest.upload(op, path, chunks)

    async def read(
        self, sandbox_id: str, path: str, start: int, end: int | None
    ) -> tuple[FileBody, AsyncIterator[bytes]]:
        """A file's bytes; the sandbox is kept awake until the iterator is closed."""
        async with self._guest(sandbox_id) as guest:
            since = self.engine.actor(sandbox_id).record
            body, chunks = await guest.read(path, start, end)
        return body, Held(self.engine.actor(sandbox_id), chunks, since)

    async def download(self, sandbox_id: str, path: str) -> AsyncIterator[bytes]:
        """A file or folder as a tar stream."""
        async with self._guest(sandbox_id) as guest:
            since = self.engine.actor(sandbox_id).record
            chunks = await guest.download(path)
        return Held(self.engine.actor(sandbox_id), chunks, since)

    def watch(
        self, sandbox_id: str, path: str, recursive: bool, after: int | None
    ) -> AsyncIterator[FileChange]:
        """What changes below a folder."""
        return self._watching.follow(self.engine.actor(sandbox_id), path, recursive, after)

    @cached_property
    def _watching(self) -> Watching:
        return Watching(what_happened)

    # Last, because its name hides the built-in one in what follows it.
    async def list(self, sandbox_id: str, path: str, depth: int) -> Listing:
        """A directory's entries."""
        async with self._guest(sandbox_id) as guest:
            return await guest.list(path, depth)


class Held(AsyncIterator[bytes]):
    """A stream out of a sandbox, which is kept awake until the stream has ended or was closed."""

    def __init__(self, box: Actor, chunks: AsyncIterator[bytes], since: Record) -> None:
        self._box, self._since = box, since
        self._chunks = chunks
        self._use = ExitStack()
        self._use.enter_context(box.use())

    async def __anext__(self) -> bytes:
        """The next piece."""
        try:
            async with unless_put_to_sleep(self._box):
                async for piece in self._chunks:
                    return piece
        except GuestUnreachable as exc:
            await self.aclose()
            raise await what_happened(self._box, exc, self._since) from exc
        except BaseException:
            self._use.close()
            raise
        self._use.close()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Read no more."""
        self._use.close()
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
