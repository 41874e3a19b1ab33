"""Following the changes of files inside a sandbox, over its pauses and without keeping it awake."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from runtools.errors import GuestUnreachable, HostUnavailable, RateLimited, SandboxStopped
from runtools.platform.core.states import Operation, State
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.resume import awake
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.host.guest.client import GuestClient
from runtools.sdk.shapes.inside import FileChange

MAX_READERS = 64
_HARMLESS = {None, Operation.SNAPSHOTTING, Operation.FORKING}


class Watching:
    """Who follows which sandbox.

    Args:
        explain: what to raise for a guest of a running sandbox that does not answer.
    """

    def __init__(self, explain: Callable[[Actor, GuestUnreachable], Awaitable[Exception]]) -> None:
        self._explain = explain
        self._readers: Counter[str] = Counter()

    async def follow(
        self, box: Actor, path: str, recursive: bool, after: int | None
    ) -> AsyncGenerator[FileChange, None]:
        """See `Host.watch`."""
        with self._counted(box.id):
            if after is None:
                with box.use():
                    guest = await awake(box, Why("request", PLATFORM))
                    found = await self._ask(box, guest, path, recursive, None, wait=False)
            elif box.state is State.RUNNING:
                found = await self._next(box, path, recursive, after, wait=False)
            else:
                found = []
            if not (found and found[0].kind in {"armed", "overflow"}):
                yield FileChange(id=after or 0, kind="armed", path=path, is_directory=True)
            while True:
                for change in found:
                    yield change
                    after = change.id
                found = await self._next(box, path, recursive, after or 0, wait=True)

    async def _next(
        self, box: Actor, path: str, recursive: bool, after: int, *, wait: bool
    ) -> list[FileChange]:
        """What the guest says next; while it sleeps, nothing."""
        while True:
            guest, since = await _running(box), box.record.running_since
            try:
                return await self._ask(box, guest, path, recursive, after, wait=wait)
            except GuestUnreachable:
                if box.guest is guest and box.record.running_since == since and _runs(box):
                    raise

    async def _ask(
        self,
        box: Actor,
        guest: GuestClient,
        path: str,
        recursive: bool,
        after: int | None,
        *,
        wait: bool,
    ) -> list[FileChange]:
        life = box.record.life
        # A copy, and one gone back in time, find watches in their memory that are not of their own.
        scope = f"{box.id}/{life.number if life else 0}"
        try:
            return await guest.watch(scope, path, recursive, after, wait=wait)
        except GuestUnreachable as exc:
            if box.guest is guest and _runs(box):
                raise await self._explain(box, exc) from exc
            raise

    @contextmanager
    def _counted(self, sandbox_id: str) -> Iterator[None]:
        if self._readers[sandbox_id] >= MAX_READERS:
            raise RateLimited(
                f"{MAX_READERS} readers watch files of {sandbox_id} already",
                hint="end some, or watch one folder above and read it once",
            )
        self._readers[sandbox_id] += 1
        try:
            yield
        finally:
            self._readers[sandbox_id] -= 1
            if not self._readers[sandbox_id]:
                del self._readers[sandbox_id]


def _runs(box: Actor) -> bool:
    return box.state is State.RUNNING and box.record.operation in _HARMLESS


async def _running(box: Actor) -> GuestClient:
    """The guest of a sandbox once it runs.

    Raises:
        SandboxStopped: it has ended.
        HostUnavailable: it runs, but this host could not take it over at its start.
    """
    while not _runs(box):
        if box.state is State.STOPPED:
            raise SandboxStopped(
                f"{box.id} has stopped",
                hint=f"runtools sandbox why {box.id} tells what ended it",
            )
        await box.changed()
    if box.guest is None:
        raise HostUnavailable(f"{box.id} could not be adopted; the host's log says why")
    return box.guest
