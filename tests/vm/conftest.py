"""A real platform in a home of the tests' own: template built once, kept for the next run.

The home is ``RT_TEST_HOME`` (default ``/var/lib/runtools-test``). What the template is made of is
remembered by a digest, so that a change of the guest agent, the recipe or the machine builds a new version.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtools import RunTools
from runtools.testing.real_platform import RUNTOOLS, Platform, eventually

ROOT = Path(__file__).parents[2]
KILL_AGENT = "kill -9 $(systemctl show -p MainPID --value runtools-agent)"
MADE_OF = (
    "src/runtools/guest/**/*",
    "src/runtools/platform/host/templates/**/*",
    "src/runtools/platform/host/drivers/qemu/command.py",  # its layout is in the warm snapshot
)


def made_of() -> str:
    """A digest of all that a template is made of."""
    total = hashlib.sha256()
    for pattern in MADE_OF:
        for file in sorted(ROOT.glob(pattern)):
            if file.is_file() and "__pycache__" not in file.parts:
                total.update(file.read_bytes())
    return total.hexdigest()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _ensure_template(rt: RunTools, home: Path) -> None:
    stamp, digest = home / "template-made-of", made_of()
    if stamp.exists() and stamp.read_text() == digest:
        return
    rt.templates.build("base-debian", wait=False)
    for line in rt.templates.logs("base-debian"):
        sys.stderr.write(f"{line.progress:4.0%} {line.text}\n")
    template = rt.templates.get("base-debian")
    assert template.state == "ready", template.error
    stamp.write_text(digest)


@pytest.fixture(scope="session", autouse=True)
def platform() -> Iterator[Platform]:
    """The platform, up; afterwards down again with nothing left running."""
    home = Path(os.environ.get("RT_TEST_HOME", "/var/lib/runtools-test"))
    os.environ["RUNTOOLS_HOME"] = str(home)
    os.environ["RUNTOOLS_API_PORT"] = str(free_port())
    os.environ["RUNTOOLS_OUTBOUND_ALLOW"] = "127.0.0.0/8"  # providers of models that tests are
    os.environ["RUNTOOLS_GATEWAY_PORT"] = str(free_port())
    os.environ["RUNTOOLS_SSH_PORT"] = str(free_port())
    subprocess.run([RUNTOOLS, "down"], check=True, timeout=300)
    subprocess.run([RUNTOOLS, "up", "--detach"], check=True, timeout=120)
    try:
        with RunTools() as rt:
            _ensure_template(rt, home)
            yield Platform(home, rt)
            for sandbox in rt.sandboxes.list():
                if sandbox.state != "stopped":
                    sandbox.destroy()
    finally:
        subprocess.run([RUNTOOLS, "down"], check=True, timeout=300)


@pytest.fixture
def killed(platform: Platform) -> Callable[[str], None]:
    """Kill a part at once and wait until another one is in its place."""

    def kill(part: str) -> None:
        pid = platform.pid(part)
        assert pid, f"there is no {part}"
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: platform.pid(part) != pid)
        eventually(lambda: platform.cli("status", ok=False).returncode == 0)

    return kill
