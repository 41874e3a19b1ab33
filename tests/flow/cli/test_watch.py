"""`runtools sandbox watch`: a line for each change, as it happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runtools import RunTools

Cli = Any  # the fixture of conftest.py


@contextmanager
def watching(cli: Cli, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """The command, once it is armed; ends by Ctrl-C."""
    command = [sys.executable, "-c", "import sys; from runtools.cli import main; sys.exit(main())"]
    with subprocess.Popen(
        [*command, "sandbox", "watch", *argv],
        env=cli.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "watching /workspace\n"
            yield process
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert (process.returncode, out, err) == (130, "", "")
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_line_for_each_change_until_ctrl_c(cli: Cli, rt: RunTools, sandbox: str) -> None:
    files = rt.sandboxes.get(sandbox).files
    with watching(cli, sandbox, "/workspace") as process:
        files.mkdir("/workspace/d")
        assert line(process) == "create    /workspace/d/\n"
        files.move("/workspace/d", "/workspace/e\n\x1b[2J")
        assert line(process) == "move      /workspace/d/ -> /workspace/e��[2J/\n"
        files.remove("/workspace/e\n\x1b[2J")
        assert line(process) == "delete    /workspace/e��[2J/\n"


def test_json_is_an_object_a_line(cli: Cli, rt: RunTools, sandbox: str) -> None:
    files = rt.sandboxes.get(sandbox).files
    files.mkdir("/workspace/deep")
    with watching(cli, sandbox, "/workspace", "--json", "--flat") as process:
        files.mkdir("/workspace/deep/unheard")
        files.mkdir("/workspace/heard")
        told = json.loads(line(process))
        assert (told["kind"], told["path"]) == ("create", "/workspace/heard")
        assert (told["isDirectory"], told["source"]) == (True, None)


def test_a_folder_that_is_not_there(cli: Cli, sandbox: str) -> None:
    done = cli("sandbox", "watch", sandbox, "/none")
    assert (done.code, done.out) == (1, b"")
    assert "/none" in done.err
