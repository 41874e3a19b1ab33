"""Watching files: how soon a tree of 20,000 files is armed, and how soon a change is heard of.

The floor of arming is to arm an empty folder, that of a change is the call that made it, alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.crowd import born
from bench.section import Bench
from bench.table import Row, Series, row

FOLDERS, FILES = 200, 100


def measure(bench: Bench) -> Iterator[Row]:
    """Milliseconds, each until the caller here knows."""
    box = born(bench.rt)
    # Folders and files by brace expansion: one process for all of them.
    made = box.exec(
        f"mkdir -p tree0/{{1..{FOLDERS}}} && touch tree0/{{1..{FOLDERS}}}/{{1..{FILES}}}",
        timeout_ms=600_000,
    )
    assert made.exit_code == 0, made.stderr
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
    box.destroy()
    yield row(f"watch of {FOLDERS * FILES:,} files armed", armed, empty)
    yield row("a change below a watched folder heard of", heard, call)
