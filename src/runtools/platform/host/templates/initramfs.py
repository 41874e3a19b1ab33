"""The first root of a booting sandbox: a static busybox, the kernel modules it needs, one script.

It is not compressed: unpacking costs an emulated CPU more than reading a megabyte or two.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from runtools.platform.host.templates import cpio
from runtools.platform.kit import process

# In the order in which they are loaded, each after what it depends on. What a kernel has built in is
# left out.
WANTED = ("virtio_mmio", "virtio_blk", "virtio_net", "erofs", "overlay", "ext4")
_APPLETS = ("sh", "mount", "mkdir", "mknod", "insmod", "usleep", "mv", "chmod", "ip", "switch_root")
_TOKEN = "runtools-token"  # noqa: S105 - a file's name


class NoSuchModule(Exception):
    """The kernel has a needed module neither built in nor as a file."""


async def make_initramfs(busybox: Path, modules: Path, out: Path) -> None:
    """Assemble the archive from a busybox binary and a folder such as ``/lib/modules/<version>``."""
    names = load_order(
        (modules / "modules.dep").read_text(), (modules / "modules.builtin").read_text()
    )
    files = [
        cpio.file(f"modules/{plain_name(name)}", await _module(modules / name)) for name in names
    ]
    order = "".join(f"{plain_name(name)}\n" for name in names)
    script = resources.files(__package__).joinpath("initramfs.sh").read_bytes()
    out.write_bytes(
        cpio.archive(
            [
                *(cpio.folder(name) for name in ("bin", "dev", "proc", "run", "root", "modules")),
                cpio.device("dev/console", 5, 1),
                cpio.file("bin/busybox", busybox.read_bytes(), 0o755),
                *(cpio.link(f"bin/{name}", "busybox") for name in _APPLETS),
                *files,
                cpio.file("modules/order", order.encode()),
                cpio.file("init", script, 0o755),
            ]
        )
    )


def initrd_with_token(initrd: Path, token: str, out: Path) -> None:
    """Write the initrd of one boot: the shared one and, appended, the token of this boot."""
    data = initrd.read_bytes() + cpio.archive([cpio.file(_TOKEN, token.encode(), 0o600)])
    out.touch(mode=0o600)
    out.chmod(0o600)
    out.write_bytes(data)


def load_order(dependencies: str, builtin: str, wanted: Sequence[str] = WANTED) -> list[str]:
    """Paths of the modules to load, in order, from the texts of modules.dep and modules.builtin.

    Raises:
        NoSuchModule: one is neither there nor built in.
    """
    needs: Mapping[str, list[str]] = {
        path: rest.split()
        for path, _, rest in (line.partition(":") for line in dependencies.splitlines())
    }
    by_name = {_module_name(path): path for path in needs}
    inside = {_module_name(path) for path in builtin.split()}
    order: dict[str, None] = {}

    def add(path: str) -> None:
        # modules.dep lists all that a module needs, the farthest last.
        for need in reversed(needs.get(path, [])):
            order.setdefault(need)
        order.setdefault(path)

    for name in wanted:
        if name in by_name:
            add(by_name[name])
        elif name not in inside:
            raise NoSuchModule(f"the kernel has no module {name}")
    return list(order)


def plain_name(path: str) -> str:
    """The name of a module's file without its compression: ``virtio_blk.ko``."""
    return Path(path).name.split(".ko")[0] + ".ko"


def _module_name(path: str) -> str:
    return Path(path).name.split(".ko")[0].replace("-", "_")


async def _module(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return (await process.run(["zstd", "-dcq", path])).stdout
    return path.read_bytes()
