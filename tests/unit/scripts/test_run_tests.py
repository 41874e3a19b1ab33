"""Who ends the run of the tests ends pytest in order, however they are told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"
# The run, or one that is told to end in the very moment in which pytest is started.
RUN = "import os, signal, sys, run_tests; {before}; sys.exit(run_tests._pytest('-q', '.'))"
EARLY = (
    "spawn = os.posix_spawn; "
    "os.posix_spawn = lambda *a, **k: (os.kill(os.getpid(), signal.SIGTERM), spawn(*a, **k))[1]"
)
SLOW = """
import os, pathlib, threading
import pytest

@pytest.fixture
def thing():
    pathlib.Path("began").write_text(str(os.getpid()))
    yield
    pathlib.Path("ended").touch()

def test_it(thing):
    threading.Event().wait(600)
"""


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "test_slow.py").write_text(SLOW)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    started = []

    def start(before: str = "pass") -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": str(SCRIPTS), "PYTEST_ADDOPTS": ""}
        words = [sys.executable, "-c", RUN.format(before=before)]
        started.append(subprocess.Popen(words, cwd=tmp_path, env=env, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # what it left behind is in its group, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_told_by_itself_tells_pytest(run, tmp_path: Path, number: int) -> None:
    process, began = run(), tmp_path / "began"
    while not began.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == pytest.ExitCode.INTERRUPTED
    assert (tmp_path / "ended").exists()


def test_what_comes_before_pytest_is_there_is_not_lost(run) -> None:
    process = run(EARLY)
    assert process.wait(60) != 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
