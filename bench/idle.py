"""Memory and CPU of sandboxes that do nothing, many at once.

A sandbox is all the processes it has: the emulator, and of ours its holder and the holder's children, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.crowd import born, destroy_all
from bench.floor import at_once
from bench.memory import pss_mb
from bench.section import Bench
from bench.table import Row, Series, at_most_floor_times, row

SETTLE_SECONDS = 5.0
WATCHED_SECONDS = 10.0


def measure(bench: Bench) -> Iterator[Row]:
    """So many of the floor, then as many of ours, each after its first command."""
    count = 6 if bench.quick else 20
    vms = [vm for vm, _ in at_once(bench.floor.create, count)]
    bare, bare_cpu = _watch([[vm.process.pid] for vm in vms if vm.process])
    destroy_all(vms)
    boxes = at_once(lambda: born(bench.rt), count)
    ours, our_cpu = _watch([_processes(box.id) for box in boxes])
    destroy_all(boxes)
    name = f"memory per idle sandbox, {count} at once"
    wanted = [at_most_floor_times(1.1)]
    yield row(name, ours, bare, unit="MB", wanted=wanted, design="74 MB")
    yield row("CPU per idle sandbox", our_cpu, bare_cpu, unit="% of a core")


def _watch(sandboxes: list[list[int]]) -> tuple[Series, Series]:
    """PSS in MB and use of a core in percent of each, its processes together, once all have settled."""
    time.sleep(SETTLE_SECONDS)
    before = [sum(map(_ticks, pids)) for pids in sandboxes]
    time.sleep(WATCHED_SECONDS)
    used = [sum(map(_ticks, pids)) - ticks for pids, ticks in zip(sandboxes, before, strict=True)]
    memory = Series([sum(map(pss_mb, pids)) for pids in sandboxes])
    return memory, Series([ticks / WATCHED_SECONDS for ticks in used])  # 100 ticks a second


def _ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12])


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process after its name: its state, its parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def _processes(sandbox_id: str) -> list[int]:
    """The emulator and the shells of its holder, which all name the sandbox, and their children."""
    parents: dict[int, int] = {}
    named: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            parents[pid] = int(_stat(pid)[1])
            words = (folder / "cmdline").read_bytes()
            program = (folder / "comm").read_text().strip()
        except OSError:
            continue
        if sandbox_id.encode() in words and (program == "sh" or program.startswith("qemu-system")):
            named[pid] = program
    if not {"sh"} < set(named.values()):
        raise RuntimeError(f"{sandbox_id} is not an emulator and its holder: {named}")
    return [pid for pid, parent in parents.items() if pid in named or parent in named]
