"""Long proofs on real virtual machines: an hour by default, any part of it on request.

points     the host is killed at every named point (about 4 s each)
integrity  pause and resume with 256 MB of known bytes, files, forks, and saved files compared
kills      the host is killed at random moments, in sagas of ten rounds
NAME       one point, e.g. fork.still

Every scene prints the seed that rules it; `--only PART --seed SEED` plays it again. What each part has
shown lies in bench/soak.json beside what is wanted, a failure as well; a run that shows less than is
wanted takes no longer one's place. After a failure the home stays, with failure.json, the host's log,
journals, ledgers, consoles, disks and saved memory.
Real machines need root and a built template, which is copied into a home of the soak's own.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from tests.soak import result, scenes
from tests.soak.home import Home, find_template

from runtools.platform.host.engine.points import CRASH_POINTS
from runtools.testing.crash.look import Driver
from runtools.testing.integrity.known import Mismatch

PARTS = ("points", "integrity", "kills")
_SAGA_ROUNDS = 10
_MINUTES = 60
_SHORT = 3  # what was asked for in numbers was not reached; nothing was wrong with what was


def say(line: str) -> None:
    """Tell the person who waits."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Soak:
    """All that was asked for, one part after the other, each in its share of the time."""

    def __init__(self, args: argparse.Namespace, home: Home) -> None:
        self._args = args
        self._home = home
        self._until = time.monotonic() + (args.minutes or _MINUTES) * 60
        self.done: list[str] = []
        self.missed: list[str] = []  # what was asked for and not reached
        self.stays: list[str] = []  # what was shown before, and weighs more
        # The whole soak, which is for nothing less than what is wanted.
        self._whole = args.minutes is None and args.only is None

    async def play(self) -> None:
        """Play every part.

        Raises:
            BaseException: what went wrong; it lies in the home, too.
        """
        parts = self._args.only or list(PARTS)
        await self._home.make()
        try:
            for n, part in enumerate(parts):
                left = self._until - time.monotonic()
                await self._part(part, time.monotonic() + left / (len(parts) - n))
        finally:
            await self._home.close()

    async def _part(self, part: str, until: float) -> None:
        if part == "integrity":
            await self._integrity(until)
        elif part == "kills":
            await self._kills(until)
        else:
            await self._points(CRASH_POINTS if part == "points" else (part,), until)

    async def _points(self, names: tuple[str, ...], until: float) -> None:
        done = 0
        for seed, name in enumerate(names, self._args.seed):
            if time.monotonic() > until:
                break
            with self._scene(name, seed) as tell:
                await scenes.point(self._home, name, seed, tell)
            done += 1
        if len(names) > 1:
            self._keep("points", {"held": done, "points": len(names), "seed": self._args.seed})
        what = "points" if len(names) > 1 else f"time {names[0]}"
        self._sum_up(what, done, len(names), asked=self._whole or len(names) == 1)

    async def _kills(self, until: float) -> None:
        done, wanted, seed = 0, self._args.rounds or math.inf, self._args.seed
        while done < wanted and time.monotonic() < until:
            rounds = int(min(_SAGA_ROUNDS, wanted - done))
            with self._scene("kills", seed) as tell:
                await scenes.kills(self._home, rounds, seed, tell)
            done, seed = done + rounds, seed + 1
        self._keep("kills", {"rounds": done, "seed": self._args.seed})
        asked = self._args.rounds or (result.ROUNDS if self._whole else None)
        self._sum_up("rounds of kills", done, asked or done, asked=asked is not None)

    async def _integrity(self, until: float) -> None:
        seed, asked = self._args.seed, self._args.cycles
        if self._whole:
            asked = asked or result.CYCLES
        wanted = asked or result.CYCLES
        with self._scene("integrity", seed) as tell:
            played = await scenes.integrity(self._home, wanted, until, seed, tell)
        self._keep("integrity", {**dataclasses.asdict(played), "mismatches": 0, "seed": seed})
        self._sum_up("cycles of integrity", played.cycles, wanted, asked=asked is not None)

    def _keep(self, part: str, facts: dict[str, Any]) -> None:
        if self._args.driver == "qemu":  # of others nothing follows about real machines
            stays = result.keep(part, facts)
            self.stays += [stays] if stays else []

    def _sum_up(self, what: str, done: int, wanted: int, *, asked: bool) -> None:
        short = f" of {wanted}, the time was over" if done < wanted else ""
        self.done.append(f"{done} {what}{short}")
        if short and asked:
            self.missed.append(f"{wanted} {what}")

    def told(self) -> str:
        """What was played, and what was not that should have been."""
        held = "what was played held: " if self.missed else "all held: "
        said = [*self.stays, held + "; ".join(self.done)]
        if self.missed:
            said.append("NOT REACHED: " + "; ".join(self.missed) + "; give it more --minutes")
        return "\n".join(said)

    @contextmanager
    def _scene(self, name: str, seed: int) -> Iterator[Callable[[str], None]]:
        """What it says bears its name and seed; what goes wrong in it is written down."""
        begun = time.monotonic()

        def tell(line: str) -> None:
            say(f"{time.strftime('%H:%M:%S')} {name} (seed {seed}): {line}")

        tell("begins")
        try:
            yield tell
        except BaseException as exc:
            facts = {
                "scene": name,
                "seed": seed,
                "again": f"./dev soak --only {name} --seed {seed}",
                "after_seconds": round(time.monotonic() - begun, 1),
                "error": f"{type(exc).__name__}: {exc}",
                "facts": exc.facts if isinstance(exc, Mismatch) else {},
                "traceback": traceback.format_exc(),
            }
            part = name if name in PARTS else "points"
            self._keep(part, {"failed": name, "seed": seed, "error": facts["error"][:500]})
            note = self._home.folder / "failure.json"
            note.write_text(json.dumps(facts, indent=2, default=str))
            say(f"FAILED {name} (seed {seed}): {facts['error'][:2000]}")
            say(f"see {note} and what lies beside it; again: {facts['again']}")
            raise


def _part(word: str) -> str:
    if word not in PARTS and word not in CRASH_POINTS:
        raise argparse.ArgumentTypeError(f"{', '.join(PARTS)}, or the name of a point")
    return word


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return int(word)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=_part, action="append", help="a part; may be repeated")
    whole = f"for all parts together; else {_MINUTES}"
    parser.add_argument("--minutes", type=float, help=whole)
    cycles = f"of integrity; else {result.CYCLES}, or with --minutes or --only as there is time for"
    parser.add_argument("--cycles", type=_count, help=cycles)
    parser.add_argument("--rounds", type=_count, help="of kills; else as there is time for")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--driver", choices=get_args(Driver), default="qemu")
    parser.add_argument("--home", type=Path, help="where to take a built template from")
    args = parser.parse_args()
    if args.driver == "local" and "integrity" in (args.only or PARTS):
        parser.error("integrity is about real memory: with --driver local say --only kills")
    return args


def main() -> None:
    """Play what was asked for."""
    args = _parse()
    template = find_template(args.home) if args.driver == "qemu" else None
    folder = Path(tempfile.mkdtemp(prefix="rt-soak-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    folder.chmod(0o711)
    soak = Soak(args, Home(folder, args.driver, template))
    asyncio.run(soak.play())
    shutil.rmtree(folder)
    say(soak.told())
    if soak.missed:
        sys.exit(_SHORT)


if __name__ == "__main__":
    main()
