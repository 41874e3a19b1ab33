"""How models are built: what no run has asked for yet is not loaded."""

from __future__ import annotations

import subprocess
import sys

_CLIENTS = ("anthropic", "openai", "google.genai", "mistralai", "groq")
_IDLE = """
import sys
from runtools.platform.agents import service
from runtools.platform.agents.models import build
print(*sys.modules)
"""


def test_providers_are_loaded_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", _IDLE], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert "runtools.platform.agents.drive" in loaded
    assert loaded.isdisjoint(_CLIENTS)
