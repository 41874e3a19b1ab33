"""A desktop's start beside any other sandbox's. Its template takes minutes: measured where it is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bench.section import TEMPLATE, Bench
from bench.table import Row, Series, at_most_floor_times, row
from runtools.errors import NotFound
from runtools.sdk.sync.sandbox import Sandbox

DESKTOP = "desktop-debian"


def measure(bench: Bench) -> Iterator[Row]:
    """Creates of both in turns, each of its template's size; a picture shows that the desktop is there."""
    _ready(bench)
    base, desktop, picture = Series(), Series(), Series()
    for _ in range(bench.rounds):
        made: list[Sandbox] = []
        base.time(lambda made=made: made.append(_born(bench, TEMPLATE)))
        desktop.time(lambda made=made: made.append(_born(bench, DESKTOP)))
        if made[1].started_from != "warm":
            raise RuntimeError(f"{made[1].id} was not made from a warm snapshot")
        picture.time(made[1].desktop.screenshot)
        for one in made:
            one.destroy()
    wanted = [at_most_floor_times(1.25)]
    yield row("a desktop's create → first command, beside a base's", desktop, base, wanted=wanted)
    yield row("the first picture after that", picture)


def _born(bench: Bench, template: str) -> Sandbox:
    """One that has answered its first command."""
    sandbox = bench.rt.sandboxes.create(template, idle_timeout_seconds=0)
    sandbox.exec("true")
    return sandbox


def _ready(bench: Bench) -> None:
    """Have the template and its warm snapshot there before anything is timed."""
    try:
        bench.rt.templates.get(DESKTOP)
    except NotFound:
        bench.rt.templates.build(DESKTOP, on_line=lambda line: sys.stderr.write(f"{line.text}\n"))
    for template in (TEMPLATE, DESKTOP):
        _born(bench, template).destroy()
