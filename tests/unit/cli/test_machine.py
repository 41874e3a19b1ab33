"""Commands on the machine become the platform's process; sudo carries its settings and no key."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtools.cli import machine

RUN = "import sys; from runtools.cli import main; sys.exit(main())"
SHOW = '#!/bin/sh\nfor word in "$@"; do echo "$word"; done; echo home=$RUNTOOLS_HOME; exit 7\n'


class Became(Exception):
    """The process has become another one."""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A PATH on which sudo shows how it was called."""
    fake = tmp_path / "bin/sudo"
    fake.parent.mkdir()
    fake.write_text(SHOW)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    source = str(Path(__file__).resolve().parents[3] / "src")
    return {
        "PATH": f"{fake.parent}:{os.defpath}",
        "PYTHONPATH": source,
        "RUNTOOLS_HOME": "/srv/rt",
        "RUNTOOLS_MEMORY_MB": "9",
        "RUNTOOLS_API_KEY": "rt_live_secret",
    }


def run(env: dict[str, str], *argv: str, uid: int = 1000) -> subprocess.CompletedProcess[str]:
    pretend = f"import os; os.geteuid = lambda: {uid}; "
    return subprocess.run(
        [sys.executable, "-c", pretend + RUN, *argv],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["setup"],
        ["up"],
        ["up", "--detach"],
        ["up", "--tls-cert", "a.pem", "--tls-key", "b.key"],
        ["down"],
    ],
)
def test_what_needs_root_asks_sudo(env: dict[str, str], argv: list[str]) -> None:
    done = run(env, *argv)
    words = done.stdout.splitlines()
    assert done.returncode == 7
    assert words[0] == "--preserve-env=RUNTOOLS_HOME,RUNTOOLS_MEMORY_MB"
    assert words[1:] == [
        "--",
        sys.executable,
        "-P",
        "-m",
        "runtools.platform",
        *argv,
        "home=/srv/rt",
    ]
    assert "needs root" in done.stderr
    assert "secret" not in done.stdout


def test_without_sudo_it_says_what_to_do(env: dict[str, str], tmp_path: Path) -> None:
    done = run(env | {"PATH": str(tmp_path)}, "up")
    assert done.returncode == 1
    assert "no sudo" in done.stderr


@pytest.mark.parametrize(("command", "uid"), [("status", 1000), ("up", 0), ("doctor", 1000)])
def test_else_it_becomes_the_platform_itself(
    monkeypatch: pytest.MonkeyPatch, command: str, uid: int
) -> None:
    def execvp(_: str, argv: list[str]) -> None:
        raise Became(argv)

    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "execvp", execvp)
    with pytest.raises(Became) as caught:
        machine.become(command, root=command == "up")
    assert caught.value.args[0] == [sys.executable, "-P", "-m", "runtools.platform", command]


def test_the_exit_code_is_the_platforms_own(env: dict[str, str], tmp_path: Path) -> None:
    env |= {"RUNTOOLS_HOME": str(tmp_path / "none"), "RUNTOOLS_NO_SUCH_SETTING": "1"}
    done = run(env, "status")
    assert done.returncode == 1
    assert "no_such_setting" in done.stderr
