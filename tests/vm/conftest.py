"""A real platform in a home of the tests' own: template built once, kept for the next run.

The home is ``RT_TEST_HOME`` (default ``/var/lib/runtools-test``). What the template is made of is
remembered by a digest, so that a change of the guest agent, the recipe or the machine builds a new version.

Builds take minutes: the tests that need no platform are tried meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtools import RunTools, errors
from runtools.sdk.shapes.templates import BuildLine
from runtools.testing.collector import Collector, collector
from runtools.testing.real_platform import RUNTOOLS, Platform, eventually

ROOT = Path(__file__).parents[2]
KILL_AGENT = "kill -9 $(systemctl show -p MainPID --value runtools-agent)"
HERE = Path(__file__).parent
ALONE = ("test_network.py", "test_qemu_driver.py", "test_walls.py")
"""What needs no platform, in the order in which it is tried."""
OWN, OWN_IS_OF = "test-own", "test_template.py"
# Tries what a hostile script would: leave a shared identity, links that lead out, devices, a mount.
HOSTILE_SCRIPT = """\
set +e
rm -f /etc/machine-id
ln -s /etc /workspace/out
mount -t tmpfs none /mnt && echo mounted >> /root/done
mknod /root/disk b 8 0 && echo made a device >> /root/done
echo "$(cat /proc/sys/kernel/core_pattern)" > /proc/sys/kernel/core_pattern && echo wrote >> /root/done
curl -s -m 2 http://127.0.0.1:$PORT/healthz && echo reached the host >> /root/done
ls /home /root/.ssh /var/lib/runtools* 2>/dev/null
(sleep 1000 &)
echo "as $(id -un) in $(pwd)" >> /root/done
"""
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


@dataclass(frozen=True)
class House:
    """A platform that is up, and its templates, which may be under way still."""

    home: Path
    base: Future[None]
    own: Future[list[BuildLine]] | None
    traces: Collector


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs no platform goes first: its templates are built meanwhile."""
    items.sort(key=lambda item: ALONE.index(item.path.name) if _is_alone(item) else len(ALONE))


def _is_alone(item: pytest.Item) -> bool:
    return item.path.parent == HERE and item.path.name in ALONE


@pytest.fixture(scope="session", autouse=True)
def house(request: pytest.FixtureRequest) -> Iterator[House | None]:
    """The platform, where a test needs it; afterwards down again with nothing left running."""
    files = {one.path.name for one in request.session.items if one.path.parent == HERE} - {*ALONE}
    if not files:
        yield None
        return
    home = Path(os.environ.get("RT_TEST_HOME", "/var/lib/runtools-test"))
    os.environ["RUNTOOLS_HOME"] = str(home)
    os.environ["RUNTOOLS_API_PORT"] = str(free_port())
    os.environ["RUNTOOLS_OUTBOUND_ALLOW"] = "127.0.0.0/8"  # providers of models that tests are
    os.environ["EXA_API_KEY"] = f"of-the-operator-{secrets.token_hex(16)}"
    os.environ["RUNTOOLS_GATEWAY_PORT"] = str(free_port())
    os.environ["RUNTOOLS_SSH_PORT"] = str(free_port())
    builder = ThreadPoolExecutor(1, "builds")
    with collector() as traces:
        os.environ["RUNTOOLS_OTLP_ENDPOINT"] = traces.url
        subprocess.run([RUNTOOLS, "down"], check=True, timeout=300)
        subprocess.run([RUNTOOLS, "up", "--detach"], check=True, timeout=120)
        try:
            base = builder.submit(_build_base, home)
            own = builder.submit(_build_own) if OWN_IS_OF in files else None
            yield House(home, base, own, traces)
        finally:
            builder.shutdown(wait=False, cancel_futures=True)  # the rest fails as the api goes
            subprocess.run([RUNTOOLS, "down"], check=True, timeout=300)


def _build_base(home: Path) -> None:
    stamp, digest = home / "template-made-of", made_of()
    with RunTools() as rt:
        _clear(rt)
        if not stamp.exists() or stamp.read_text() != digest:
            rt.templates.build("base-debian")
            stamp.write_text(digest)
        # Else each change of the agent would make the home, which a test copies, half a gigabyte larger.
        for older in rt.templates.versions("base-debian")[1:]:
            with contextlib.suppress(errors.TemplateInUse):
                rt.templates.delete("base-debian", older.version)


def _build_own() -> list[BuildLine]:
    lines: list[BuildLine] = []
    script = f"PORT={os.environ['RUNTOOLS_API_PORT']}\n{HOSTILE_SCRIPT}"
    with RunTools() as rt:
        rt.templates.build(
            OWN, recipe="base-debian", apt=["cowsay"], run=script, on_line=lines.append
        )
    return lines


def _clear(rt: RunTools) -> None:
    """Remove what this session or one that was killed has left."""
    for sandbox in rt.sandboxes.list():
        if sandbox.state != "stopped":
            sandbox.destroy()
    with contextlib.suppress(errors.NotFound, errors.TemplateInUse):
        rt.templates.delete(OWN)


@pytest.fixture(scope="session", autouse=True)
def platform(house: House) -> Iterator[Platform]:
    """The platform, with all templates that were under way."""
    house.base.result()
    if house.own is not None:
        house.own.exception()
    with RunTools() as rt:
        yield Platform(house.home, rt)
        _clear(rt)


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
