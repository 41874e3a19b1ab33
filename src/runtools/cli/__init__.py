"""The command line. It reaches the platform through the SDK alone, so the public API stays complete.

Only what a command needs is imported: the SDK when it connects, rich when it draws.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command; the exit code is the process's."""
    if sys.argv[1:] in ([], ["--help"], ["-h"]):
        from runtools.cli.overview import TEXT  # noqa: PLC0415 - only who asks for it pays for it

        sys.stdout.write(TEXT)
        return 0
    from runtools.cli.app import run  # noqa: PLC0415 - `import runtools.cli` must cost nothing

    return run()
