"""A neighbour while another sandbox attacks: commands in it before and during each attack.

The floor of each row is the same neighbour before the attack; on a machine with as many processors as
sandboxes at work the ratio is what the walls are worth, on fewer it is the share that is left. The bounds
are for two processors, which an attacker with two of its own leaves a third of: they say that both stay
usable, whatever is filled.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from bench.crowd import born
from bench.section import Bench
from bench.table import (
    Row,
    Series,
    at_most_floor_plus,
    at_most_floor_times,
    nearly_always_at_most,
    row,
)
from runtools.errors import RunToolsError
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.attacks import ATTACKS

SETTLE_SECONDS = 3.0
COMMAND = (at_most_floor_times(4), nearly_always_at_most(1000))
ANSWER = (at_most_floor_plus(50), nearly_always_at_most(250))


def measure(bench: Bench) -> Iterator[Row]:
    """Commands in the neighbour, and the platform's own answers, before and during."""
    commands = 10 if bench.quick else 40
    neighbour = born(bench.rt)
    try:
        for name, attack in ATTACKS.items():
            before, asked = _answers(bench, neighbour, commands)
            attacker = born(bench.rt)
            try:
                process = attacker.processes.start(attack)
                time.sleep(SETTLE_SECONDS)
                during, answered = _answers(bench, neighbour, commands)
                state = process.refresh().view.state
                assert state == "running", f"the attack on {name} did not last"
            finally:
                with contextlib.suppress(RunToolsError):
                    attacker.destroy()
            what = f"while a guest fills {name}"
            yield row(f"a neighbour's command {what}", during, before, wanted=COMMAND)
            yield row(f"the API's answer {what}", answered, asked, wanted=ANSWER)
    finally:
        neighbour.destroy()


def _answers(bench: Bench, neighbour: Sandbox, count: int) -> tuple[Series, Series]:
    commands, answers = Series(), Series()
    for _ in range(count):
        commands.time(lambda: neighbour.exec("true"))
        answers.time(neighbour.refresh)
    return commands, answers
