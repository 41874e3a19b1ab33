"""What every host must do for those who follow the files of a sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runtools.errors import (
    FileMissing,
    FileNotDirectory,
    InvalidPath,
    SandboxStopped,
)
from runtools.platform.core.ports.host import Child
from runtools.sdk.shapes.inside import FileChange
from runtools.testing.contracts.host_rig import ACTOR, HostRig, close

TOP = "/workspace"


class Following:
    """One reader."""

    def __init__(self, hosts: HostRig, box: str, path: str = TOP, after: int | None = None) -> None:
        self._hosts = hosts
        self._items: AsyncIterator[FileChange] = hosts.host.watch(box, path, True, after)

    async def next(self) -> FileChange:
        """The next item."""
        async with asyncio.timeout(self._hosts.patience):
            return await anext(self._items)

    async def until(self, kind: str, path: str) -> list[FileChange]:
        """All items up to this one."""
        seen = [await self.next()]
        while (seen[-1].kind, seen[-1].path) != (kind, path):
            seen.append(await self.next())
        return seen

    async def close(self) -> None:
        """Read no more."""
        await close(self._items)


class HostWatchContract:
    """Changes of files."""

    async def test_every_kind_of_change(self, hosts: HostRig) -> None:
        box = await hosts.running()
        reader = Following(hosts, box)
        assert (await reader.next()).kind == "armed"
        await hosts.sh(box, "mkdir d; echo 1 > d/a")
        seen = await reader.until("create", f"{TOP}/d/a")  # before d is gone again
        await hosts.sh(box, "mv d e; rm e/a; mv e ../e; mv ../e f")
        seen += await reader.until("create", f"{TOP}/f")
        told = [(one.kind, one.path) for one in seen if one.kind != "change"]
        assert told == [
            ("create", f"{TOP}/d"),
            ("create", f"{TOP}/d/a"),
            ("move", f"{TOP}/e"),
            ("delete", f"{TOP}/e/a"),
            ("delete", f"{TOP}/e"),
            ("create", f"{TOP}/f"),
        ]
        moved = next(one for one in seen if one.kind == "move")
        assert (moved.source, moved.is_directory) == (f"{TOP}/d", True)
        assert [one.id for one in seen] == list(range(seen[0].id, seen[0].id + len(seen)))
        await reader.close()

    async def test_who_left_goes_on_where_he_was(self, hosts: HostRig) -> None:
        box = await hosts.running()
        reader = Following(hosts, box)
        begun = await reader.next()
        await reader.close()
        await hosts.sh(box, "mkdir a b c")
        again = Following(hosts, box, after=begun.id)
        assert (await again.next()).kind == "armed"
        first = await again.next()
        assert (first.kind, first.path) == ("create", f"{TOP}/a")
        await again.until("create", f"{TOP}/c")
        await again.close()
        third = Following(hosts, box, after=first.id)
        seen = await third.until("create", f"{TOP}/c")
        assert [one.path for one in seen[1:]] == [f"{TOP}/b", f"{TOP}/c"]
        await third.close()

    async def test_what_is_lost_is_said(self, hosts: HostRig) -> None:
        box = await hosts.running()
        reader = Following(hosts, box, after=7)
        assert (await reader.next()).kind == "overflow"
        await hosts.sh(box, "mkdir a")
        await reader.until("create", f"{TOP}/a")
        await reader.close()

    async def test_it_lives_through_a_pause_and_wakes_nothing(self, hosts: HostRig) -> None:
        box = await hosts.running()
        reader = Following(hosts, box)
        begun = await reader.next()
        coming = asyncio.ensure_future(reader.next())
        await hosts.pause(box)
        late = Following(hosts, box, after=begun.id)
        assert (await late.next()).kind == "armed"
        assert await hosts.state(box) == "paused"
        await hosts.resume(box)
        await hosts.sh(box, "mkdir a")
        assert (await coming).path == f"{TOP}/a"
        assert (await late.next()).path == f"{TOP}/a"
        await reader.close()
        await late.close()

    async def test_it_wakes_a_paused_one_to_begin(self, hosts: HostRig) -> None:
        box = await hosts.paused()
        reader = Following(hosts, box)
        assert (await reader.next()).kind == "armed"
        assert await hosts.state(box) == "running"
        await reader.close()

    async def test_a_child_begins_anew(self, hosts: HostRig) -> None:
        box, child = await hosts.running(), hosts.child()
        reader = Following(hosts, box)
        begun = await reader.next()
        await hosts.host.fork(box, hosts.op(), ACTOR, [Child(sandbox_id=child)])
        other = Following(hosts, child, after=begun.id)
        assert (await other.next()).kind == "overflow"
        await other.close()
        await reader.close()

    async def test_what_went_back_in_time_says_so(self, hosts: HostRig) -> None:
        box = await hosts.running()
        kept = await hosts.snapshot(box)
        reader = Following(hosts, box)
        begun = await reader.next()
        await hosts.host.rollback(box, hosts.op(), ACTOR, kept)
        again = Following(hosts, box, after=begun.id)
        seen = await again.next()
        assert seen.kind == "overflow"
        await again.close()
        await reader.close()

    async def test_it_ends_with_the_sandbox(self, hosts: HostRig) -> None:
        box = await hosts.running()
        reader = Following(hosts, box)
        await reader.next()
        await hosts.destroy(box)
        with pytest.raises(SandboxStopped):
            await reader.next()

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("/none", FileMissing),
            ("/workspace/file", FileNotDirectory),
            ("relative", InvalidPath),
            ("/workspace/../etc", InvalidPath),
        ],
    )
    async def test_what_cannot_be_watched(
        self, hosts: HostRig, path: str, error: type[Exception]
    ) -> None:
        box = await hosts.running()
        await hosts.put(box, "/workspace/file", b"")
        with pytest.raises(error):
            await Following(hosts, box, path).next()
