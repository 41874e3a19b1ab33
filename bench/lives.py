"""Starting, pausing and forking, ours beside the floor."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.crowd import born, destroy_all, each_at_once
from bench.floor import Agent, Vm, at_once
from bench.section import Bench
from bench.table import (
    Row,
    Series,
    at_most,
    at_most_floor_plus,
    at_most_floor_times,
    nearly_always_at_most,
    row,
)
from runtools.sdk.sync.sandbox import Sandbox

OTHERS = ("restore_ms", "network_ms", "agent_ms", "first_byte_ms")
MANY = 8


def measure(bench: Bench) -> Iterator[Row]:
    """Creates, pauses and resumes, forks."""
    yield from creates(bench)
    yield from many_creates(bench)
    yield from pauses(bench)
    yield from forks(bench)


def creates(bench: Bench) -> Iterator[Row]:
    """One at a time, and the platform's own share of it: in the host, and on the way to it and back."""
    rt, floor = bench.rt, bench.floor
    ours, bare, own, beside = Series(), Series(), Series(), Series()
    born(rt).destroy()
    for _ in range(bench.rounds):
        made: list[Vm] = []
        bare.time(lambda made=made: made.append(floor.create()[0]))
        made[0].destroy()
        began = time.perf_counter()
        box = rt.sandboxes.create(idle_timeout_seconds=0)
        made_ms = (time.perf_counter() - began) * 1000
        box.exec("true")
        ours.values.append((time.perf_counter() - began) * 1000)
        timings = box.timings
        own.values.append(timings.total_ms - sum(getattr(timings, name) for name in OTHERS))
        beside.values.append(made_ms - timings.total_ms)
        box.destroy()
    wanted = [at_most_floor_times(1.25)]
    yield row("create → first command", ours, bare, wanted=wanted, design="500 ms")
    yield row("the platform's own time in a create", own, wanted=[at_most(20)])
    yield row("a create beside its host's phases: sdk, api, key, database, hops", beside)


def many_creates(bench: Bench) -> Iterator[Row]:
    """Eight at once."""
    rt, floor = bench.rt, bench.floor
    ours, bare = Series(), Series()
    for _ in range(max(2, bench.rounds // 4)):
        vms: list[tuple[Vm, Agent]] = []
        bare.time(lambda vms=vms: vms.extend(at_once(floor.create, MANY)))
        destroy_all([vm for vm, _ in vms])
        boxes: list[Sandbox] = []
        ours.time(lambda boxes=boxes: boxes.extend(at_once(lambda: born(rt), MANY)))
        destroy_all(boxes)
    wanted = [at_most_floor_times(1.25)]
    yield row(f"{MANY} creates at once", ours, bare, wanted=wanted, design="2900-3500 ms")


def pauses(bench: Bench) -> Iterator[Row]:
    """The first pause of a clone, the later ones, and resumes up to the first command."""
    floor = bench.floor
    first, later, later_bare, back, back_bare = (Series() for _ in range(5))
    vm, agent = floor.create_own()
    box = born(bench.rt)
    for n in range(bench.rounds + 1):
        later_bare.time(lambda: floor.pause(vm))
        back_bare.time(lambda: floor.resume(vm, agent))
        (later if n else first).time(box.pause)
        back.time(lambda: (box.resume(), box.exec("true")))
    vm.destroy()
    box.destroy()
    yield row("first pause of a clone", first)
    yield row(
        "later pauses", later, later_bare, wanted=[nearly_always_at_most(80)], design="12-30 ms"
    )
    wanted = [at_most_floor_times(1.25), at_most(1000)]
    yield row("resume → first command", back, back_bare, wanted=wanted, design="400-500 ms")


def forks(bench: Bench) -> Iterator[Row]:
    """One child, many children, and how long the parent stood still."""
    floor = bench.floor
    vm, _ = floor.create_own()
    box = born(bench.rt)
    box.pause()
    box.resume()
    for count, times in ((1, bench.rounds), (MANY, max(2, bench.rounds // 4))):
        ours, bare, still, still_bare = (Series() for _ in range(4))
        for _ in range(times):
            began = time.perf_counter()
            standstill, made = floor.fork(vm, count)
            bare.values.append((time.perf_counter() - began) * 1000)
            still_bare.values.append(standstill)
            destroy_all([child for child, _ in made])
            children: list[Sandbox] = []
            ours.time(lambda children=children, count=count: children.extend(_forked(box, count)))
            entry = next(e for e in reversed(list(box.why())) if "standstill_ms" in e.detail)
            still.values.append(float(entry.detail["standstill_ms"]))
            destroy_all(children)
        yield row(f"fork → first command, {count}", ours, bare, wanted=[at_most_floor_times(1.25)])
        wanted = [at_most_floor_plus(50)]
        yield row(f"the parent's standstill, {count}", still, still_bare, wanted=wanted)
    vm.destroy()
    box.destroy()


def _forked(box: Sandbox, count: int) -> list[Sandbox]:
    children = list(box.fork(count=count))
    each_at_once(lambda child: child.exec("true"), children)
    return children
