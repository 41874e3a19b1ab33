"""`./dev bench`: the running platform through its public SDK, beside the floor, in one run.

Floor and platform take turns, so that a noisy moment of the machine hits both. To measure something
more, write a module of this package with

    def measure(bench: Bench) -> Iterator[Row]: …

that yields `row("what", ours, floor, wanted=[at_most_floor_times(1.25)])`, and name it in SECTIONS.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bench.noted import circumstances
from bench.section import Bench, section
from bench.table import Row, show
from runtools import RunTools

SECTIONS = (
    "lives",
    "execs",
    "processes",
    "api",
    "control",
    "files",
    "bulk",
    "watch",
    "egress",
    "ssh",
    "gateway",
    "idle",
    "hostile",
    "deploys",
    "agents",
)
NAMED = ("desktop",)  # measured where they are named
LATEST = Path(__file__).parent / "latest.json"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS + NAMED))
    parser.add_argument("--rounds", type=int, default=10, help="how often each is measured")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    args = parser.parse_args()
    names = args.sections or SECTIONS
    if unknown := [name for name in names if name not in SECTIONS + NAMED]:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS + NAMED)}")
    every: list[Row] = []
    with RunTools() as rt:
        work = Path(tempfile.mkdtemp(prefix="runtools-bench-", dir="/var/tmp"))
        bench = Bench(rt, work, 4 if args.quick else args.rounds, args.quick)
        try:
            for name in names:
                rows: list[Row] = []
                for one in section(name).measure(bench):
                    rows.append(one)
                    print(f"{one.name}: {one.ours.p50:.1f} {one.unit}", file=sys.stderr)
                keep(name, rows)
                every += rows
        finally:
            bench.close()
    show(every)
    missed = [one.name for one in every if one.passed is False]
    print(f"missed: {', '.join(missed)}" if missed else "every bound is kept")
    if earlier := older(names):
        print(f"kept from earlier runs: {', '.join(earlier)}")


def older(names: Collection[str]) -> list[str]:
    """The sections of `latest.json` that were not measured now, each with when and at which commit."""
    kept: dict[str, Any] = json.loads(LATEST.read_text())["sections"]
    return [
        f"{name} ({one.get('at', 'time unknown')}, {one.get('commit', 'commit unknown')})"
        for name, one in kept.items()
        if name not in names
    ]


def keep(name: str, rows: list[Row]) -> None:
    """Put a section's rows in the place of the earlier ones in `latest.json`."""
    kept: dict[str, Any] = json.loads(LATEST.read_text())["sections"] if LATEST.exists() else {}
    kept[name] = {**circumstances(), "rows": [one.to_json() for one in rows]}
    ordered = {one: kept[one] for one in SECTIONS + NAMED if one in kept}
    LATEST.write_text(json.dumps({"sections": ordered}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":  # processes that a section spawns import this module too
    main()
