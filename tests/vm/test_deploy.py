"""A project folder on real virtual machines: init, deploy, again, replace, a crash half-way, prune."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtools.testing.real_platform import RUNTOOLS, Platform, eventually

pytestmark = pytest.mark.vm

PROJECT = "vm-deploy"
BOX = f"{PROJECT}-dev-env"


@pytest.fixture
def project(platform: Platform, tmp_path: Path) -> Iterator[Path]:
    """What `runtools init` makes; nothing of it stands afterwards."""
    root = tmp_path / PROJECT
    subprocess.run([RUNTOOLS, "init", str(root)], check=True, timeout=60)
    yield root
    for file in root.glob("*/*.py"):
        file.unlink()
    deploy(root, "--prune", "--yes")
    platform.rt.projects.delete(PROJECT)


def deploy(root: Path, *options: str) -> list[tuple[str, str, str]]:
    """What `runtools deploy` says that it has done."""
    argv = [RUNTOOLS, "deploy", "--json", *options]
    done = subprocess.run(argv, cwd=root, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told: dict[str, Any] = json.loads(done.stdout)
    return [(one["action"], one["kind"], one["slug"]) for one in told["changes"]]


def set_up(root: Path, *lines: str) -> None:
    """Give the sandbox another `setup`."""
    (root / "sandboxes/dev_env.py").write_text(
        "from runtools import define_sandbox\n"
        f"define_sandbox(slug='dev-env', env={{'WHERE': 'here'}}, setup={list(lines)!r})\n"
    )


def said(platform: Platform, command: str) -> str:
    return platform.rt.sandboxes.get(BOX).exec(command).stdout


def test_init_deploy_again_replace_and_prune(platform: Platform, project: Path) -> None:
    assert deploy(project, "--yes") == [
        ("create", "tool", "word-count"),
        ("create", "sandbox", "dev-env"),
        ("create", "agent", "hello"),
    ]
    assert deploy(project) == []
    assert said(platform, "ls") == "src\n"
    first = platform.rt.standing_sandboxes.get("dev-env", project_id=PROJECT).sandbox_id

    set_up(project, "echo $WHERE >> made", "sleep 1; echo there >> made")
    assert deploy(project, "--yes") == [("replace", "sandbox", "dev-env")]
    assert said(platform, "cat made") == "here\nthere\n"
    assert platform.rt.sandboxes.get(first).state == "stopped"

    sandbox = platform.rt.sandboxes.get(BOX)
    sandbox.exec("rm made; touch mine")
    sandbox.rollback("setup")
    assert said(platform, "ls") == "made\n"
    assert deploy(project) == []

    set_up(project, "echo $WHERE >> made", "exit 3")
    failed = subprocess.run(
        [RUNTOOLS, "deploy", "--yes"], cwd=project, capture_output=True, timeout=600, check=False
    )
    assert failed.returncode == 1
    assert b"setup command 2 ended with exit code 3" in failed.stderr
    assert platform.rt.sandboxes.get(BOX).id == sandbox.id
    assert said(platform, "cat made") == "here\nthere\n"


def test_limits_are_changed_in_place(platform: Platform, project: Path) -> None:
    deploy(project, "--yes")
    before = platform.rt.sandboxes.get(BOX)
    before.exec("echo kept > kept")
    file = project / "sandboxes/dev_env.py"
    text = file.read_text()
    limits = "idle_timeout_seconds=77, tags={'a': 'b'}, internet=False,\n    setup="
    file.write_text(text.replace("setup=", limits))
    assert deploy(project, "--yes") == [("update", "sandbox", "dev-env")]
    after = platform.rt.sandboxes.get(BOX)
    assert (after.id, after.view.idle_timeout_seconds, after.view.tags) == (
        before.id,
        77,
        {"a": "b"},
    )
    assert after.egress.get().internet is False
    assert said(platform, "cat kept") == "kept\n"


def test_the_api_is_killed_while_setup_runs(platform: Platform, project: Path) -> None:
    """The deploy goes on by itself, and each command has been run once."""
    set_up(project, "echo one >> made; sleep 4; echo two >> made")
    argv = [RUNTOOLS, "deploy", "--yes", "--json"]
    with subprocess.Popen(argv, cwd=project, stdout=subprocess.PIPE) as deploying:
        eventually(lambda: _is_setting_up(platform))
        os.kill(platform.pid("api"), signal.SIGKILL)
        out, _ = deploying.communicate(timeout=300)
    assert deploying.returncode == 0
    assert json.loads(out)["deploy"]["state"] == "done"
    assert said(platform, "cat made") == "one\ntwo\n"
    assert deploy(project) == []
    living = [
        one for one in platform.rt.sandboxes.list(project_id=PROJECT) if one.state != "stopped"
    ]
    assert len(living) == 1


def _is_setting_up(platform: Platform) -> bool:
    if PROJECT not in {one.name for one in platform.rt.projects.list()}:
        return False
    for sandbox in platform.rt.sandboxes.list(project_id=PROJECT):
        if sandbox.state == "running" and any(
            one.id == "setup-1" for one in sandbox.processes.list()
        ):
            return True
    return False
