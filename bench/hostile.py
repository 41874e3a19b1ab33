"""A neighbour while another sandbox attacks: commands in it before and during each attack.

The floor of each row is the same neighbour before the attack; on a machine with as many processors as
sandboxes at work the ratio is what the walls are worth, on fewer it is the share that is left.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from bench.crowd import born
from bench.section import Bench
from bench.table import Row, Series, row
from runtools.errors import RunToolsError
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.attacks import ATTACKS

SETTLE_SECONDS = 3.0


def measure(bench: Bench) -> Iterator[Row]:
    """Commands in the neighbour, and the platform's own answers, before and during."""
    commands = 10 if bench.quick else 40
    neighbour = born(bench.rt)
    try:
        for name, attack in ATTACKS.items():
            before, asked = _answers(bench, neighbour, commands)
            attacker = born(bench.rt)
            try:
                attacker.processes.start(attack)
                time.sleep(SETTLE_SECONDS)
                during, answered = _answers(bench, neighbour, commands)
            finally:
                with contextlib.suppress(RunToolsError):
                    attacker.destroy()
            yield row(f"a neighbour's command while a guest fills {name}", during, before)
            yield row(f"the API's answer while a guest fills {name}", answered, asked)
    finally:
        neighbour.destroy()


def _answers(bench: Bench, neighbour: Sandbox, count: int) -> tuple[Series, Series]:
    commands, answers = Series(), Series()
    for _ in range(count):
        commands.time(lambda: neighbour.exec("true"))
        answers.time(neighbour.refresh)
    return commands, answers
