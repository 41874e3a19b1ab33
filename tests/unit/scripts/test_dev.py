"""What the script of the checkout hands to root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
Soak = Callable[[Mapping[str, str]], list[str]]


@pytest.fixture
def soak(tmp_path: Path) -> Soak:
    """The words that sudo is called with when an ordinary user runs the soak in that environment."""
    programs = {
        "bin/id": "echo 1000",
        "bin/sudo": 'printf "%s\\n" "$@"',
        ".venv/bin/runtools": "exit 0",
    }
    for name, script in programs.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    shutil.copy(ROOT / "dev", tmp_path)
    (tmp_path / "requirements").mkdir()
    for name in ("requirements/dev.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / ".venv/.made-from").write_text(
        subprocess.check_output(["cksum"], input=(ROOT / "dev").read_bytes()).decode()
    )

    def run(environ: Mapping[str, str]) -> list[str]:
        env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", **environ}
        said = subprocess.check_output([tmp_path / "dev", "soak", "--only", "points"], env=env)
        return said.decode().splitlines()

    return run


SOAK = ["--", ".venv/bin/python", "-m", "tests.soak", "--only", "points"]


def test_settings_go_through_sudo_by_their_names(soak: Soak) -> None:
    said = soak(
        {
            "RT_TEST_SEED": "7",
            "RUNTOOLS_HOME": "/srv/a home",
            "RUNTOOLS_API_KEY": "rt_live_x",
            "RUNTOOLS_API_URL": "http://elsewhere",
            "LANG": "C",
        }
    )
    option, *rest = said
    assert option.startswith("--preserve-env=")
    assert set(option.partition("=")[2].split(",")) == {"RT_TEST_SEED", "RUNTOOLS_HOME"}
    assert rest == SOAK


def test_without_settings_sudo_keeps_nothing(soak: Soak) -> None:
    assert soak({"LANG": "C"}) == SOAK
