"""Run pytest, and what failed beside other tests once more by itself: ``run_tests.py ARGUMENTS…``.

Thousands of tests share two processors. One that fails in that crowd and holds alone is unsteady: a fault
of the test or a race of the platform, to be found and mended, but no reason to throw away what all others
show. It is named at the end, with its first failure above. More than a few at once are never put down to
the crowd, and what fails alone as well fails.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MOST_AGAIN = 5
_FAILED = 1  # pytest's exit code where tests failed, and nothing else went wrong
_LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main(arguments: Sequence[str]) -> int:
    """Run the tests; returns the exit code."""
    _LAST_FAILED.unlink(missing_ok=True)
    code = _pytest("--areas", *arguments)
    failed = sorted(json.loads(_LAST_FAILED.read_text())) if _LAST_FAILED.exists() else []
    if code != _FAILED or not 0 < len(failed) <= MOST_AGAIN:
        return code
    if again := _pytest(*failed):
        return again
    sys.stdout.write("UNSTEADY, they failed beside others and hold alone:\n")
    sys.stdout.writelines(f"    {name}\n" for name in failed)
    return 0


def _pytest(*arguments: str) -> int:
    # A Ctrl-C at the terminal reaches pytest by itself, which then ends what its tests have started: nobody
    # may kill it meanwhile. (A handler is not handed on to a child; to ignore a signal would be.)
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen([sys.executable, "-m", "pytest", *arguments])
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
