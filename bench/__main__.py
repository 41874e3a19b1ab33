"""`./dev bench`: the running platform through its public SDK, beside the floor, in one run.

Floor and platform take turns, so that a noisy moment of the machine hits both. ``--rounds N`` sets how
often; ``--quick`` leaves out what takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from bench import files, lives
from bench.floor import Floor
from bench.table import Row, save, show
from runtools import RunTools
from runtools.platform.host.templates.initramfs import initrd_with_token
from runtools.platform.host.templates.kernel import host_tsc_khz, kernel_arguments
from runtools.platform.kit.config import load

TEMPLATE = "base-debian"
LATEST = Path(__file__).parent / "latest.json"
ACCELERATORS = {
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max"],
    "kvm": ["-accel", "kvm", "-cpu", "host"],
}


def make_floor(rt: RunTools, work: Path) -> Floor:
    """A floor over the newest version of the template, under the platform's own accelerator."""
    version = rt.templates.get(TEMPLATE).id
    image = load().host_home / "templates" / version
    accelerator = next(iter(rt.hosts.list())).accelerator
    initrd = work / "initrd"
    initrd_with_token(image / "initrd", "floor", initrd)
    tsc = host_tsc_khz() if accelerator == "tcg" else None
    return Floor(image, work, ACCELERATORS[accelerator], kernel_arguments(tsc), initrd)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    work = Path("/var/tmp/runtools-bench")
    work.mkdir(exist_ok=True)
    with RunTools() as rt:
        floor = make_floor(rt, work)
        try:
            floor.warm()
            rows: list[Row] = []
            for part in (lives.creates, lives.pauses, lives.forks, lives.execs, files.transfers):
                rows += part(rt, floor, args.rounds)
                show(rows)
            if not args.quick:
                rows += lives.idle(rt, floor, 20)
        finally:
            floor.close()
    show(rows)
    save(rows, LATEST)
    print(json.dumps({"load": os.getloadavg()}))


main()
