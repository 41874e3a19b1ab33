"""Long rounds of crashes: ``python -m tests.soak [--driver qemu] [--rounds N] [--seed S] [--points]``.

With QEMU it needs root and a home in which a template was built (``--home``, else the usual ones); it
works in a home of its own, with a copy of that template and its warm snapshots.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

from runtools.platform.core.ports.host import BuildOrder, Sizes
from runtools.platform.host.engine.points import CRASH_POINTS
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.platform.kit.config import load
from runtools.testing.crash.house import House, Maker
from runtools.testing.crash.look import Driver, kill_machines
from runtools.testing.crash.points import survive
from runtools.testing.crash.saga import Saga
from runtools.testing.local_template import LocalTemplates

SETTINGS = {"RUNTOOLS_DISK_HEADROOM_MB": "512", "RUNTOOLS_MEMORY_FACTOR": "0.25"}
# The sizes that a template is warmed for.
SIZES = Sizes(vcpus=2, memory_mb=1024, disk_mb=2048)
LONGEST = {"local": 0.5, "qemu": 4.0}


def say(line: str) -> None:
    """Tell the person who waits."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def find_template(home: Path | None) -> Path:
    """The folder of the newest template that was built in a home."""
    homes = [home] if home else [load().home, Path("/var/lib/runtools-test")]
    built = [f.parent for one in homes for f in (one / "host/templates").glob("*/base.erofs")]
    if not built:
        sys.exit(
            f"no template was built in {' or '.join(map(str, homes))}: runtools template build"
        )
    return max(built, key=lambda folder: folder.stat().st_mtime)


def copy_template(template: Path, home: Path) -> None:
    """The template and its warm snapshots, by reference where the file system can."""
    warm = sorted((template.parents[1] / "warm").glob(f"{template.name}-*"))
    for source, target in ((template, "templates"), *((one, "warm") for one in warm)):
        (home / "host" / target).mkdir(parents=True, exist_ok=True)
        words = ["cp", "-a", "--reflink=auto", "--sparse=always", str(source)]
        subprocess.run([*words, str(home / "host" / target)], check=True)


async def make_template(home: Path) -> str:
    """A template of local machines."""
    templates = LocalTemplates(home / "host" / "templates")
    order = BuildOrder(
        version_id="tpl_soak", slug="base", version=1, recipe="base-debian", apt=[], run=None
    )
    await templates.build(order)
    assert [line async for line in templates.build_log(order.version_id, 0)]
    return order.version_id


async def soak(args: argparse.Namespace, home: Path) -> None:
    """Play it in a home of its own."""
    if args.driver == "local":
        template = await make_template(home)
    else:
        source = find_template(args.home)
        copy_template(source, home)
        template = source.name
    maker = Maker(args.driver)
    try:
        if args.points:
            for n, point in enumerate(CRASH_POINTS):
                await play(args, home, template, maker, random.Random(args.seed + n), point)
        else:
            await play(args, home, template, maker, random.Random(args.seed), "")
    finally:
        maker.close()
        kill_machines(home, args.driver)
        if args.driver == "qemu":
            network = NamespaceNetwork((home / "install-id").read_text(), reserve=0)
            await network.reclaim(())
            await network.stop()


async def play(
    args: argparse.Namespace,
    home: Path,
    template: str,
    maker: Maker,
    chance: random.Random,
    point: str,
) -> None:
    """One scene, or all rounds. On a failure the home is left as it is."""
    house = House(home, maker, SETTINGS)
    saga = Saga(house, args.driver, template, SIZES, chance, most=4, longest=LONGEST[args.driver])
    began = time.monotonic()
    try:
        if point:
            await survive(saga, point)
        else:
            await saga.play(args.rounds, lambda n: say(f"round {n}: {saga.acts} acts"))
    except BaseException:
        say(f"FAILED {point} after {saga.acts} acts; seed {args.seed}; see {house.log}")
        raise
    finally:
        await house.close()
    what = point or f"{args.rounds} rounds"
    say(f"{what}: {saga.acts} acts, {time.monotonic() - began:.1f} s")


def main() -> None:
    """Parse and play."""
    parser = argparse.ArgumentParser(prog="dev soak", description=__doc__)
    parser.add_argument("--driver", choices=get_args(Driver), default="qemu")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--points", action="store_true", help="every named point instead of chance")
    parser.add_argument("--home", type=Path, help="where to take a built template from")
    args = parser.parse_args()
    say(f"seed {args.seed}")
    home = Path(tempfile.mkdtemp(prefix="rt-soak-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    home.chmod(0o711)
    asyncio.run(soak(args, home))
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
