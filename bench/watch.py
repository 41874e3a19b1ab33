"""Watching files: how soon trees of 20,000 files are armed, and how soon a change is heard of.

The floor of arming is to arm an empty folder, that of a change is the call that made it, alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.crowd import born
from bench.section import Bench
from bench.table import Row, Series, at_most, row
from runtools.sdk.sync.sandbox import Sandbox

TREES = ((200, 100), (1000, 20))  # folders, and files in each


def measure(bench: Bench) -> Iterator[Row]:
    """Milliseconds, each until the caller here knows."""
    for folders, files in TREES:
        box = born(bench.rt)
        # By brace expansion: one process for all folders, and one for all files.
        made = box.exec(
            f"mkdir -p tree0/{{1..{folders}}} && touch tree0/{{1..{folders}}}/{{1..{files}}}",
            timeout_ms=600_000,
        )
        assert made.exit_code == 0, made.stderr
        yield from _watched(bench, box, f"{folders * files:,} files in {folders:,} folders")
        box.destroy()


def _watched(bench: Bench, box: Sandbox, what: str) -> Iterator[Row]:
    armed, empty, heard, call = (Series() for _ in range(4))
    for number in range(bench.rounds):
        # Each round under names of its own: a watch is kept for those who come back to it.
        tree, bare = f"/workspace/tree{number}", f"/workspace/empty{number}"
        box.files.mkdir(bare)
        for path, series in ((bare, empty), (tree, armed)):
            began = time.perf_counter()
            with box.files.watch(path):
                series.values.append((time.perf_counter() - began) * 1000)
        with box.files.watch(bare) as changes:
            began = time.perf_counter()
            box.files.mkdir(f"{bare}/new")
            call.values.append((time.perf_counter() - began) * 1000)
            next(changes)
            heard.values.append((time.perf_counter() - began) * 1000)
        box.files.move(tree, f"/workspace/tree{number + 1}")
    yield row(f"watch armed, {what}", armed, empty, wanted=[at_most(1000)])
    yield row("a change below a watched folder heard of", heard, call, wanted=[at_most(200)])
