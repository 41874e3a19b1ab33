"""Starting, pausing, forking, running and idling, ours beside the floor."""

from __future__ import annotations

import re
import time
from pathlib import Path

from bench.floor import Agent, Floor, Vm, at_once
from bench.table import Row, Series, row
from runtools import RunTools
from runtools.sdk.sync.sandbox import Sandbox

OTHERS = ("restore_ms", "network_ms", "agent_ms", "first_byte_ms")


def born(rt: RunTools) -> Sandbox:
    """A sandbox that has answered its first command."""
    sandbox = rt.sandboxes.create(idle_timeout_seconds=0)
    sandbox.exec("true")
    return sandbox


def creates(rt: RunTools, floor: Floor, rounds: int) -> list[Row]:
    """One at a time, and eight at once; and the platform's own share of one."""
    ours, bare, own = Series(), Series(), Series()
    born(rt).destroy()
    for _ in range(rounds):
        made: list[Vm] = []
        bare.time(lambda made=made: made.append(floor.create()[0]))
        made[0].destroy()
        boxes: list[Sandbox] = []
        ours.time(lambda boxes=boxes: boxes.append(born(rt)))
        timings = boxes[0].timings
        own.values.append(timings.total_ms - sum(getattr(timings, name) for name in OTHERS))
        boxes[0].destroy()
    many, many_bare = Series(), Series()
    for _ in range(max(2, rounds // 4)):
        vms: list[tuple[Vm, Agent]] = []
        many_bare.time(lambda vms=vms: vms.extend(at_once(floor.create, 8)))
        at_once_destroy([vm for vm, _ in vms])
        boxes = []
        many.time(lambda boxes=boxes: boxes.extend(at_once(lambda: born(rt), 8)))
        at_once_destroy(boxes)
    return [
        row("create → first command", ours, bare, wanted="≤ 1.25", design="500 ms"),
        row("8 creates at once", many, many_bare, wanted="≤ 1.25", design="2900-3500 ms"),
        row("the platform's own time in a create", own, wanted="p50 ≤ 20 ms"),
    ]


def pauses(rt: RunTools, floor: Floor, rounds: int) -> list[Row]:
    """The first pause of a clone, the later ones, and resumes up to the first command."""
    first, later, later_bare, back, back_bare = (Series() for _ in range(5))
    vm, agent = floor.create_own()
    box = born(rt)
    for n in range(rounds):
        later_bare.time(lambda: floor.pause(vm))
        back_bare.time(lambda: floor.resume(vm, agent))
        (later if n else first).time(box.pause)
        back.time(lambda: (box.resume(), box.exec("true")))
    vm.destroy()
    box.destroy()
    return [
        row("first pause of a clone", first),
        row("later pauses", later, later_bare, wanted="≤ 80 ms", design="12-30 ms"),
        row("resume → first command", back, back_bare, wanted="≤ 1.25, < 1 s", design="400-500 ms"),
    ]


def forks(rt: RunTools, floor: Floor, rounds: int) -> list[Row]:
    """One child, eight children, and how long the parent stood still."""
    rows: list[Row] = []
    vm, _ = floor.create_own()
    box = born(rt)
    box.pause()
    box.resume()
    for count, times in ((1, rounds), (8, max(2, rounds // 4))):
        ours, bare, still, still_bare = (Series() for _ in range(4))
        for _ in range(times):
            began = time.perf_counter()
            standstill, made = floor.fork(vm, count)
            bare.values.append((time.perf_counter() - began) * 1000)
            still_bare.values.append(standstill)
            at_once_destroy([child for child, _ in made])
            children: list[Sandbox] = []
            ours.time(lambda children=children, count=count: children.extend(_forked(box, count)))
            entry = next(e for e in reversed(list(box.why())) if "standstill_ms" in e.detail)
            still.values.append(float(entry.detail["standstill_ms"]))
            at_once_destroy(children)
        rows += [
            row(f"fork → first command, {count}", ours, bare, wanted="≤ 1.25"),
            row(f"the parent's standstill, {count}", still, still_bare, wanted="≤ floor + 50 ms"),
        ]
    vm.destroy()
    box.destroy()
    return rows


def _forked(box: Sandbox, count: int) -> list[Sandbox]:
    children = list(box.fork(count=count))
    at_once_each(lambda child: child.exec("true"), children)
    return children


def execs(rt: RunTools, floor: Floor, rounds: int) -> list[Row]:
    """A command's round trip."""
    ours, bare = Series(), Series()
    vm, agent = floor.create()
    box = born(rt)
    for _ in range(rounds * 10):
        bare.time(agent.exec)
        ours.time(lambda: box.exec("true"))
    vm.destroy()
    box.destroy()
    return [row("exec round trip", ours, bare, wanted="≤ floor + 8 ms", design="18-20 ms")]


def idle(rt: RunTools, floor: Floor, count: int) -> list[Row]:
    """Memory and CPU of so many that do nothing."""
    bare, ours = Series(), Series()
    vms = [vm for vm, _ in at_once(floor.create, count)]
    time.sleep(5)
    bare.values += [vm.memory() for vm in vms]
    bare_cpu = _cpu([vm.process.pid for vm in vms if vm.process])
    at_once_destroy(vms)
    boxes = at_once(lambda: born(rt), count)
    time.sleep(5)
    pids = [pid for box in boxes for pid in _vmms(box.id)]
    ours.values += [_pss(pid) for pid in pids]
    our_cpu = _cpu(pids)
    at_once_destroy(boxes)
    return [
        row(
            f"memory per idle sandbox, {count} at once",
            ours,
            bare,
            unit="MB",
            wanted="≤ 1.1",
            design="74 MB",
        ),
        row("CPU per idle sandbox", our_cpu, bare_cpu, unit="% of a core"),
    ]


def _cpu(pids: list[int], seconds: float = 10.0) -> Series:
    def ticks() -> dict[int, int]:
        fields = {
            pid: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids
        }
        return {pid: int(one[11]) + int(one[12]) for pid, one in fields.items()}

    before = ticks()
    time.sleep(seconds)
    after = ticks()
    return Series([(after[pid] - before[pid]) / seconds for pid in pids])


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


def _pss(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+)", text, re.M)
    assert found is not None
    return int(found[1]) / 1024


def at_once_destroy(things: list) -> None:
    """Destroy all."""
    at_once_each(lambda thing: thing.destroy(), things)


def at_once_each(work, things: list) -> None:
    """Do the work to each, all at once."""
    left = list(things)
    at_once(lambda: work(left.pop()), len(things))
