"""What all tests have in common."""

from __future__ import annotations

from hypothesis import settings

# Speed is measured elsewhere: an example that was slow on a busy machine is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
