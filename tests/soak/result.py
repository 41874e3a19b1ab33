"""What soaks have shown, part by part, beside what is wanted of them: a file that is committed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.noted import circumstances

from runtools.platform.host.drivers.qemu.saving import COPIED_ONCE

RESULT = Path(__file__).parents[2] / "bench" / "soak.json"
CYCLES, ROUNDS, CLOCK_MS, SMALL_MB = 100, 50, 500, COPIED_ONCE >> 20

Facts = dict[str, Any]


@dataclass(frozen=True)
class Bound:
    """What a part is to show: how it reads, and whether what was shown keeps it."""

    text: str
    kept: Callable[[Facts], bool]


WANTED = {
    "integrity": (
        Bound(f"cycles ≥ {CYCLES}", lambda shown: shown["cycles"] >= CYCLES),
        Bound("mismatches = 0", lambda shown: shown["mismatches"] == 0),
        Bound("small_forks ≥ 1", lambda shown: shown["small_forks"] >= 1),
        Bound(f"small_mb ≤ {SMALL_MB}", lambda shown: shown["small_mb"] <= SMALL_MB),
        Bound(f"clock_ms < {CLOCK_MS}", lambda shown: shown["clock_ms"] < CLOCK_MS),
    ),
    "kills": (Bound(f"rounds ≥ {ROUNDS}", lambda shown: shown["rounds"] >= ROUNDS),),
    "points": (Bound("held = points", lambda shown: shown["held"] == shown["points"]),),
}
_LENGTH = {"integrity": "cycles", "kills": "rounds", "points": "held"}


def keep(part: str, facts: Facts) -> str | None:
    """Put what a part has shown in the place of what it showed before; else say what stays there.

    A failure always gets its place. What held, but is less than is wanted, replaces neither a longer run
    nor a failure.
    """
    kept: dict[str, Facts] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    failed = "failed" in facts
    passed = not failed and all(bound.kept(facts) for bound in WANTED[part])
    before = kept.get(part)
    if before and not failed and not passed and _outweighs(before, facts, _LENGTH[part]):
        return f"{RESULT.name} keeps what {part} has shown before: {_told(before, _LENGTH[part])}"
    wanted = [bound.text for bound in WANTED[part]]
    kept[part] = {**circumstances(), **facts, "wanted": wanted, "passed": passed}
    text = json.dumps(dict(sorted(kept.items())), indent=2, ensure_ascii=False)
    RESULT.write_text(f"{text}\n")
    return None


def _outweighs(before: Facts, fresh: Facts, length: str) -> bool:
    return "failed" in before or before[length] > fresh[length]


def _told(shown: Facts, length: str) -> str:
    what = f"{shown['failed']} failed" if "failed" in shown else f"{shown[length]} {length}"
    return f"{what}, at {shown['commit']}, {shown['at']}"
