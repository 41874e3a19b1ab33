"""One build: from an order to the files of a template version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtools.errors import BuildFailed
from runtools.platform.core.ports.host import BuildOrder
from runtools.platform.core.ports.network import Network
from runtools.platform.host.disk.files import free_bytes
from runtools.platform.host.disk.trees import used_bytes
from runtools.platform.host.templates import desktop, rootfs
from runtools.platform.host.templates.buildlog import BuildLog
from runtools.platform.host.templates.chroot import TIED
from runtools.platform.host.templates.images import BASE, INITRD, KERNEL
from runtools.platform.host.templates.initramfs import make_initramfs
from runtools.platform.host.templates.kernel import unpack_kernel
from runtools.platform.host.templates.recipes import recipe_of
from runtools.platform.host.templates.script import run_script
from runtools.platform.kit import process

# The unpacked system, the image made of it and what is downloaded, with room for added packages.
NEEDED_BYTES = 4 << 30
DESKTOP_BYTES = 7 << 30


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where builds are done.

    Attributes:
        work: scratch space; each build has a folder of its own in it.
        cache: downloaded packages, kept so that the next build fetches only what is new.
        mirror: from the settings; empty: the one that this machine's apt uses.
        network: gives a script the network of a sandbox.
        kasmvnc: from the settings: the address or file of that package.
        keep_free: bytes of the disk that are the sandboxes': a build that would take of them is not begun.
    """

    work: Path
    cache: Path
    mirror: str
    network: Network
    kasmvnc: str
    keep_free: int = 0


async def build(order: BuildOrder, shop: Workshop, folder: Path, log: BuildLog) -> None:
    """Make base image, kernel and initrd in ``folder``. What is left in the workshop is to be cleared.

    Raises:
        BuildFailed: a step failed; the message names it and quotes the reason.
    """
    work = shop.work / order.version_id
    await clear(shop, order.version_id)
    work.mkdir(parents=True, mode=0o700)
    try:
        needed = DESKTOP_BYTES if recipe_of(order.recipe).vnc else NEEDED_BYTES
        _check_room(work, needed, shop.keep_free)
        await _steps(order, shop, work, folder, log)
    except (process.CommandFailed, TimeoutError, OSError, LookupError, ValueError) as exc:
        raise BuildFailed(f"{log.step_name}: {_reason(log, exc)}") from exc


async def clear(shop: Workshop, version_id: str) -> None:
    """Remove what a build has in the workshop.

    That is a tree of a hundred thousand files, for which our own loop would take minutes.
    """
    rm = ["rm", "-rf", "--one-file-system", "--", str(shop.work / version_id)]
    await process.run(rm, timeout=None, check=False)


async def _steps(
    order: BuildOrder, shop: Workshop, work: Path, folder: Path, log: BuildLog
) -> None:
    recipe = recipe_of(order.recipe)
    root = work / "root"
    root.mkdir()
    log.step("packages", 0.0, 0.42)
    cache = shop.cache / f"{recipe.distribution}-{recipe.suite}"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    await rootfs.install(root, recipe, order.apt, cache, shop.mirror, log)
    log.step("kernel", 0.42, 0.47)
    boot = await rootfs.fetch_boot(root, recipe, work, log)
    await desktop.add_foreign(root, recipe, shop.kasmvnc, work, log)
    rootfs.keep_packages(root, cache)
    await unpack_kernel(boot.kernel, folder / KERNEL)
    await make_initramfs(boot.busybox, boot.modules, folder / INITRD)
    log.step("tools", 0.47, 0.56)
    await rootfs.add_tools(root, log)
    log.step("set-up", 0.56, 0.58)
    await rootfs.set_up(root, log)
    if recipe.vnc is not None:
        await desktop.set_up(root, recipe, log)
    if order.run is not None:
        log.step("script", 0.58, 0.6)
        await run_script(order.run, root, work, shop.network, log)
    log.step("image", 0.6, 0.65)
    await rootfs.forget_identity(root, log)
    rootfs.clean(root)
    await process.stream([*TIED, "mkfs.erofs", "--quiet", folder / BASE, root], log.line)
    for name in (BASE, KERNEL, INITRD):
        (folder / name).chmod(0o444)
    log.line(f"{used_bytes(folder) >> 20} MB")


def _check_room(folder: Path, needed: int, keep_free: int) -> None:
    free = max(0, free_bytes(folder) - keep_free)
    if free < needed:
        raise BuildFailed(
            f"a build needs {needed >> 20} MB of disk, {free >> 20} MB are free above the headroom",
            hint="runtools prune frees what is kept for convenience",
            details={"neededBytes": needed, "freeBytes": free},
        )


def _reason(log: BuildLog, exc: Exception) -> str:
    """What went wrong, in the words of the program that knows.

    That is its first line marked as an error, else the last that it said.
    """
    if not isinstance(exc, process.CommandFailed):
        return str(exc)[:1000]
    for text in log.texts(log.step_name):
        if text.startswith(("E: ", "npm error", "<E> ")):
            return text[:500]
    said = [text for text in exc.output.decode(errors="replace").splitlines() if text.strip()]
    return f"ended with {exc.code}: {' · '.join(said[-3:])[-1000:]}"
