"""How the hosts are: their views, disk use, and what stands in the way of work."""

from __future__ import annotations

import asyncio

from runtools.errors import HostUnavailable, RunToolsError
from runtools.platform.api.hosts import store
from runtools.platform.api.platform import Platform
from runtools.sdk.shapes.events import HostView
from runtools.sdk.shapes.sandboxes import DiskUse, Pruned

ANSWER_SECONDS = 3.0


async def views(platform: Platform) -> list[HostView]:
    """Every host as it is now; one that does not answer as it last was, not alive."""
    asked = await asyncio.gather(*(_view(platform, host_id) for host_id in platform.hosts.ids))
    last = await platform.db.read(store.views)
    found = []
    for host_id, view in zip(platform.hosts.ids, asked, strict=True):
        if view is not None:
            found.append(view)
        elif host_id in last:
            old = HostView.model_validate(last[host_id])
            found.append(old.model_copy(update={"alive": False}))
    return found


async def _view(platform: Platform, host_id: str) -> HostView | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            view = await platform.hosts.port(host_id).view()
    except (RunToolsError, TimeoutError):
        return None
    return view.model_copy(update={"id": host_id})


async def present(platform: Platform, host_id: str) -> None:
    """Refuse to begin something new on a host that is known to be away and does not answer now.

    Raises:
        HostUnavailable: nothing was written, nothing was done.
    """
    if host_id in platform.away:
        if await _view(platform, host_id) is None:
            raise HostUnavailable(
                f"host {host_id} does not answer", hint="runtools status shows the parts"
            )
        platform.away.discard(host_id)


async def note(platform: Platform) -> None:
    """Write down how the hosts look, for the time when they do not answer."""
    for view in await views(platform):
        if view.alive:
            seen = view.model_dump(mode="json", by_alias=False)
            await platform.db.write(store.seen, view.id, seen, platform.clock.now())


def warnings(platform: Platform, seen: list[HostView]) -> list[str]:
    """What a person should know about the hosts, in sentences."""
    found = []
    known = {view.id: view for view in seen}
    for host_id in platform.hosts.ids:
        view = known.get(host_id)
        if view is None:
            found.append(f"host {host_id} has never answered")
        elif not view.alive:
            found.append(f"host {view.name} does not answer")
        elif view.isolation == "emulated":
            found.append(
                f"host {view.name} runs sandboxes under emulation ({view.accelerator}): slower, and "
                "isolation is not promised there; runtools doctor says why"
            )
        if lost := platform.strays.get(host_id):
            found.append(
                f"host {host_id} keeps {len(lost)} sandboxes, paused, that no record bears "
                f"({lost[0]} among them): restore a newer backup, or see runtools strays"
            )
    return found


async def disk_use(platform: Platform) -> DiskUse:
    """Bytes on the disks of all hosts together."""
    each = [await platform.hosts.port(host_id).disk_use() for host_id in platform.hosts.ids]
    names = DiskUse.model_fields
    return DiskUse(**{name: sum(getattr(use, name) for use in each) for name in names})


async def prune(platform: Platform, *, ended: bool, warm: bool) -> Pruned:
    """Free space on all hosts."""
    each = [await platform.hosts.port(host_id).prune(ended, warm) for host_id in platform.hosts.ids]
    names = Pruned.model_fields
    return Pruned(**{name: sum(getattr(done, name) for done in each) for name in names})
