"""What a soak plays: a host killed at a point or at random, a sandbox paused over and over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.soak.home import SIZES, Home

from runtools.testing.crash.house import House
from runtools.testing.crash.points import survive
from runtools.testing.crash.saga import Saga
from runtools.testing.integrity.cycles import Cycles

Tell = Callable[[str], None]

_LONGEST = {"local": 0.5, "qemu": 4.0}


async def point(home: Home, name: str, seed: int, tell: Tell) -> None:
    """The host kills itself at one named point; nothing is lost."""
    began = time.monotonic()
    house = home.house()
    try:
        saga = _saga(home, house, seed)
        await survive(saga, name)
    finally:
        await house.close()
    tell(f"{saga.acts} acts, {time.monotonic() - began:.1f} s")


async def kills(home: Home, rounds: int, seed: int, tell: Tell) -> None:
    """The host is killed at so many random moments; nothing is lost."""
    house = home.house()
    try:
        saga = _saga(home, house, seed)
        await saga.play(rounds, lambda n: tell(f"round {n}, {saga.acts} acts"))
    finally:
        await house.close()


@dataclass(frozen=True)
class Played:
    """Cycles of which each held."""

    cycles: int
    forks: int
    small_forks: int  # of them, of a machine with so little memory in use that it is copied once
    small_mb: int  # that it had in use at most
    clock_ms: int  # by how much a clock was wrong at most
    compared_mb: (
        int  # of saved memory, devices and disks, read after each pause and before each resume
    )


async def integrity(home: Home, cycles: int, until: float, seed: int, tell: Tell) -> Played:
    """So many cycles, or as many as there is time for.

    Raises:
        Mismatch: something was not what it had been. The machine was paused with what it had.
    """
    house = home.house()
    played = Cycles(house.host, home.folder, home.template, SIZES, seed, tell)
    done = 0
    try:
        await house.start()
        await played.begin()
        while done < cycles and time.monotonic() < until:
            done += 1
            await played.cycle(done)
        await played.end()
    except BaseException:
        tell(f"cycle {done} of {played.sandbox}")
        await played.keep_for_a_look()
        raise
    finally:
        await house.close()
    tell(
        f"{done} cycles, {played.forks} forks, {played.small_forks} of them with no more than"
        f" {played.small_mb} MB in use; no mismatch; clocks off by at most"
        f" {played.worst_clock * 1000:.0f} ms; {played.read_bytes >> 30} GB of saved files compared"
    )
    return Played(
        done,
        played.forks,
        played.small_forks,
        played.small_mb,
        round(played.worst_clock * 1000),
        played.read_bytes >> 20,
    )


def _saga(home: Home, house: House, seed: int) -> Saga:
    return Saga(
        house,
        home.driver,
        home.template,
        SIZES,
        random.Random(seed),
        most=4,
        longest=_LONGEST[home.driver],
    )
