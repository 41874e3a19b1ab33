"""What all tests have in common."""

from __future__ import annotations

import signal

from hypothesis import settings

# Speed is measured elsewhere: an example that was slow on a busy machine is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
