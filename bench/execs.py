"""A command's round trip through SDK and API, beside the same command over a raw socket."""

from __future__ import annotations

from collections.abc import Iterator

from bench.crowd import born
from bench.section import Bench
from bench.table import Row, Series, at_most_floor_plus, row


def measure(bench: Bench) -> Iterator[Row]:
    """Turn about, command by command."""
    ours, bare = Series(), Series()
    vm, agent = bench.floor.create()
    box = born(bench.rt)
    for _ in range(20):  # the emulator warms up
        agent.exec()
        box.exec("true")
    for _ in range(bench.rounds * 20):
        bare.time(agent.exec)
        ours.time(lambda: box.exec("true"))
    vm.destroy()
    box.destroy()
    yield row("exec round trip", ours, bare, wanted=[at_most_floor_plus(8)], design="18-20 ms")
