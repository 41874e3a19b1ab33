"""What all tests have in common."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# Speed is measured elsewhere: examples that were slow, or slow to make, on a busy machine are no failure.
slow = [HealthCheck.too_slow]
settings.register_profile("unhurried", deadline=None, suppress_health_check=slow)
settings.load_profile("unhurried")

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
