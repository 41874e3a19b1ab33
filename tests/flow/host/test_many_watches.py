"""A thousand watches of files through one host: each hears its own change, and they cost little."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from runtools.errors import RateLimited
from runtools.platform.host import watching

BOXES, FOLDERS, READERS = 20, 2, 25  # local machines share one kernel, which lends 128 inotifies
MOST_MB = 200  # of host and test together


async def test_a_thousand_hear_their_own(world) -> None:
    boxes = await asyncio.gather(*(world.create(idle_timeout_seconds=0) for _ in range(BOXES)))
    folders = [f"/workspace/{n}" for n in range(FOLDERS)]
    await asyncio.gather(*(world.sh(box, f"mkdir {' '.join(folders)}") for box in boxes))
    before = _resident()
    watches = {
        (box, folder, n): world.host.watch(box, folder, True, None)
        for box in boxes
        for folder in folders
        for n in range(READERS)
    }
    assert len(watches) == 1000
    armed = await asyncio.gather(*(anext(one) for one in watches.values()))
    assert {one.kind for one in armed} == {"armed"}
    heard = asyncio.gather(*(anext(one) for one in watches.values()))
    await asyncio.gather(
        *(world.sh(box, f"for d in {' '.join(folders)}; do echo > $d/f; done") for box in boxes)
    )
    async with asyncio.timeout(60):
        for (_, folder, _), change in zip(watches, await heard, strict=True):
            assert (change.kind, change.path) == ("create", f"{folder}/f")
    assert _resident() - before < MOST_MB
    await _is_bounded(world, boxes[0])
    await asyncio.gather(*(one.aclose() for one in watches.values()))
    assert {await world.sh(box, "echo fine") for box in boxes} == {"fine"}


async def _is_bounded(world, box: str) -> None:
    """One sandbox's readers are, whatever they watch; who leaves makes room."""
    more = []
    for n in range(watching.MAX_READERS - FOLDERS * READERS):
        more.append(world.host.watch(box, f"/workspace/{n % FOLDERS}", True, None))
        await anext(more[-1])
    with pytest.raises(RateLimited, match="64 readers watch"):
        await anext(world.host.watch(box, "/workspace", True, None))
    await more[0].aclose()
    more.append(world.host.watch(box, "/workspace", True, None))
    assert (await anext(more[-1])).kind == "armed"
    await asyncio.gather(*(one.aclose() for one in more))


def _resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024
