"""Memory and CPU of sandboxes that do nothing, many at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.crowd import born, destroy_all
from bench.floor import at_once, pss_mb
from bench.section import Bench
from bench.table import Row, Series, at_most_floor_times, row

SETTLE_SECONDS = 5.0
WATCHED_SECONDS = 10.0


def measure(bench: Bench) -> Iterator[Row]:
    """So many of the floor, then as many of ours, each after its first command."""
    count = 6 if bench.quick else 20
    vms = [vm for vm, _ in at_once(bench.floor.create, count)]
    bare, bare_cpu = _watch([vm.process.pid for vm in vms if vm.process])
    destroy_all(vms)
    boxes = at_once(lambda: born(bench.rt), count)
    ours, our_cpu = _watch([pid for box in boxes for pid in _vmms(box.id)])
    destroy_all(boxes)
    name = f"memory per idle sandbox, {count} at once"
    wanted = [at_most_floor_times(1.1)]
    yield row(name, ours, bare, unit="MB", wanted=wanted, design="74 MB")
    yield row("CPU per idle sandbox", our_cpu, bare_cpu, unit="% of a core")


def _watch(pids: list[int]) -> tuple[Series, Series]:
    """PSS in MB and use of a core in percent of each, once all have settled."""
    time.sleep(SETTLE_SECONDS)
    before = [_ticks(pid) for pid in pids]
    time.sleep(WATCHED_SECONDS)
    used = [_ticks(pid) - ticks for pid, ticks in zip(pids, before, strict=True)]
    memory = Series([pss_mb(pid) for pid in pids])
    return memory, Series([ticks / WATCHED_SECONDS for ticks in used])  # 100 ticks a second


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _vmms(sandbox_id: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            program = (folder / "comm").read_text()
        except OSError:
            continue
        if sandbox_id.encode() in words and program.startswith("qemu-system"):
            found.append(int(folder.name))
    return found
