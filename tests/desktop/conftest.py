"""A real platform with a template that has a desktop, in a home of its own that is kept for the next run.

The home is ``RT_TEST_HOME`` (default ``/var/lib/runtools-desktop``). What the template is made of is
remembered by a digest, as for the tests of virtual machines.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.desktop.browser import Browser
from tests.vm.conftest import free_port, made_of

from runtools import RunTools
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.real_platform import RUNTOOLS, Platform

RECIPE = "desktop-debian"


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The platform, up, with the template; afterwards down again with nothing left running."""
    home = Path(os.environ.get("RT_TEST_HOME", "/var/lib/runtools-desktop"))
    os.environ["RUNTOOLS_HOME"] = str(home)
    for name in ("API", "GATEWAY", "SSH"):
        os.environ[f"RUNTOOLS_{name}_PORT"] = str(free_port())
    subprocess.run([RUNTOOLS, "down"], check=True, timeout=300)
    subprocess.run([RUNTOOLS, "up", "--detach"], check=True, timeout=120)
    try:
        with RunTools() as rt:
            stamp, digest = home / "desktop-made-of", made_of()
            if not (stamp.exists() and stamp.read_text() == digest):
                rt.templates.build(RECIPE, on_line=lambda line: sys.stderr.write(f"{line.text}\n"))
                stamp.write_text(digest)
            yield Platform(home, rt)
    finally:
        subprocess.run([RUNTOOLS, "down"], check=True, timeout=300)


@pytest.fixture(scope="session")
def desk(platform: Platform) -> Iterator[Sandbox]:
    """A sandbox with a desktop."""
    with platform.rt.sandboxes.create(RECIPE) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def out() -> Path:
    """Where pictures go, to be looked at: ``RT_DESKTOP_OUT``."""
    folder = Path(os.environ.get("RT_DESKTOP_OUT", "/tmp/runtools-desktop"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real Chromium."""
    with Browser(tmp_path_factory.mktemp("chromium")) as made:
        yield made
