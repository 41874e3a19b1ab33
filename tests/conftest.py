"""What all tests have in common."""

from __future__ import annotations

import signal
import time

import pytest
from hypothesis import HealthCheck, settings

from runtools.testing import areas

# Speed is measured elsewhere: examples that were slow, or slow to make, on a busy machine are no failure.
slow = [HealthCheck.too_slow]
settings.register_profile("unhurried", deadline=None, suppress_health_check=slow)
settings.load_profile("unhurried")

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_BEGAN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--areas``."""
    parser.addoption("--areas", action="store_true", help="say how long each area of tests took")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the time went."""
    if not terminalreporter.config.getoption("areas"):
        return
    reports = [
        one
        for kind in terminalreporter.stats.values()
        for one in kind
        if isinstance(one, pytest.TestReport)
    ]
    terminalreporter.section("time by area")
    took = [(one.nodeid, one.duration) for one in reports]
    for line in areas.lines(took, time.monotonic() - _BEGAN):
        terminalreporter.write_line(line)
