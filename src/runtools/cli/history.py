"""Where a project's files stand in their history, as git tells."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from runtools.sdk.shapes.deploys import Commit

_SECONDS = 10.0
_ID = re.compile(r"[0-9a-f]{40,64}")


def commit(root: Path) -> Commit | None:
    """The commit that is checked out, and whether the folder differs from it; None without one."""
    found = _git(root, "rev-parse", "HEAD")
    if found is None or _ID.fullmatch(found) is None:
        return None
    changed = _git(root, "status", "--porcelain", "--", ".")
    return Commit(id=found, dirty=changed != "")


def _git(root: Path, *words: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, "-C", str(root), *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
