"""Under which circumstances something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def circumstances() -> dict[str, Any]:
    """When, at which commit, and on what."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _commit() -> str:
    """What was measured; marked where it had changes that no commit has. What is written here is none."""
    try:
        commit = _git("rev-parse", "--short=8", "HEAD")
        changed = _git("status", "--porcelain", "--", ":/", ":(exclude,top)bench/*.json")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(*words: str) -> str:
    asked = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
