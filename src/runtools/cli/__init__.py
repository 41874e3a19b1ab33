"""The command line. It reaches the platform through the SDK alone, so the public API stays complete.

Only what a command needs is imported: the SDK when it connects, rich when it draws.
"""

from __future__ import annotations


def main() -> int:
    """Run one command; the exit code is the process's."""
    from runtools.cli.app import run  # noqa: PLC0415 - `import runtools.cli` must cost nothing

    return run()
