"""A home of a soak's own: a built template in it at the beginning, nothing of it running at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runtools.platform.core.ports.host import BuildOrder, Sizes
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.platform.kit.config import load
from runtools.testing.crash.house import House, maker
from runtools.testing.crash.look import Driver, kill_machines
from runtools.testing.forks import Maker
from runtools.testing.local_template import LocalTemplates

SETTINGS = {"RUNTOOLS_DISK_HEADROOM_MB": "512", "RUNTOOLS_MEMORY_FACTOR": "0.25"}
# The sizes that a template is warmed for.
SIZES = Sizes(vcpus=2, memory_mb=1024, disk_mb=2048)


class Home:
    """Where all parts of a soak play.

    Args:
        folder: empty.
        template: the folder of a template to copy; None for local machines, which need none.
    """

    def __init__(self, folder: Path, driver: Driver, template: Path | None) -> None:
        self.folder = folder
        self.driver = driver
        self.template = ""
        self._source = template
        self._maker: Maker | None = None

    async def make(self) -> None:
        """Put the template there."""
        if self._source is None:
            self.template = await _make_template(self.folder)
        else:
            _copy_template(self._source, self.folder)
            self.template = self._source.name
        self._maker = maker(self.driver)

    def house(self) -> House:
        """A host process in it, not yet started."""
        assert self._maker is not None
        return House(self.folder, self._maker, SETTINGS)

    async def close(self) -> None:
        """End all that is left of it; the files stay."""
        if self._maker is not None:
            self._maker.close()
        kill_machines(self.folder, self.driver)
        install = self.folder / "install-id"
        if self.driver == "qemu" and install.exists():
            network = NamespaceNetwork(install.read_text(), reserve=0)
            await network.reclaim(())
            await network.stop()


def find_template(home: Path | None) -> Path:
    """The folder of the newest template that was built in a home."""
    homes = [home] if home else [load().home, Path("/var/lib/runtools-test")]
    built = [f.parent for one in homes for f in (one / "host/templates").glob("*/base.erofs")]
    if not built:
        sys.exit(
            f"no template was built in {' or '.join(map(str, homes))}: runtools template build"
        )
    return max(built, key=lambda folder: folder.stat().st_mtime)


def _copy_template(template: Path, home: Path) -> None:
    """The template and its warm snapshots, by reference where the file system can."""
    warm = sorted((template.parents[1] / "warm").glob(f"{template.name}-*"))
    for source, target in ((template, "templates"), *((one, "warm") for one in warm)):
        (home / "host" / target).mkdir(parents=True, exist_ok=True)
        words = ["cp", "-a", "--reflink=auto", "--sparse=always", str(source)]
        subprocess.run([*words, str(home / "host" / target)], check=True)


async def _make_template(home: Path) -> str:
    """A template of local machines."""
    templates = LocalTemplates(home / "host" / "templates")
    order = BuildOrder(
        version_id="tpl_soak", slug="base", version=1, recipe="base-debian", apt=[], run=None
    )
    await templates.build(order)
    assert [line async for line in templates.build_log(order.version_id, 0)]
    return order.version_id
