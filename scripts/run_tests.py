"""Run pytest, and what failed beside other tests once more by itself: ``run_tests.py ARGUMENTS…``.

Thousands of tests share two processors. One that fails in that crowd and holds alone is unsteady: a fault
of the test or a race of the platform, to be found and mended, but no reason to throw away what all others
show. It is named at the end, with its first failure above. More than a few at once are never put down to
the crowd, and what fails alone as well fails.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

MOST_AGAIN = 5
_FAILED = 1  # pytest's exit code where tests failed, and nothing else went wrong
_BY_THE_TERMINAL = 0x80  # SI_KERNEL: what a Ctrl-C sends to all that run there
_TOLD = (signal.SIGINT, signal.SIGTERM)
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
    # Blocked rather than handled: what comes before pytest is there to be told is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_TOLD, signal.SIGCHLD})
    words = [sys.executable, "-m", "pytest", *arguments]
    pid = os.posix_spawn(sys.executable, words, os.environ, setsigmask=())
    is_told = False
    while True:
        got = signal.sigwaitinfo({*_TOLD, signal.SIGCHLD})
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        # Once, and not where the terminal has told it: the second time nobody ends what tests have started.
        if got.si_signo in _TOLD and got.si_code != _BY_THE_TERMINAL and not is_told:
            is_told = True
            os.kill(pid, signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
