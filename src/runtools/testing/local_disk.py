"""The disk of a local machine: a file tree while it lives, an opaque overlay file while it does not.

The host copies, keeps and hands out ``overlay.img`` as a file whose inside is nobody's business. So
that snapshots, rollback, fork and recovery hold for local machines too, the tree is packed into that
file at every moment at which a real disk would be copied: in a suspend, in a capture, at an end. A
used overlay is a tar archive with a hole behind it up to the disk's size; an unused one is whatever
the host made (an empty file system) and stands for a fresh tree. ``/run`` is memory and not kept.
The size is not enforced: a tree may outgrow its disk.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from runtools.platform.kit import process

# Mounted over from the host, read-only; where the host's /bin is a link into /usr, ours is too.
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FOLDERS = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/tmp": 0o1777,
    "workspace": 0o755,
}
_FILES = {
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/shadow": "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
}
# Written without the hole behind it: what a fresh tar archive begins with at byte 257.
_MAGIC_AT, _MAGIC = 257, b"ustar"
_FRESH, _GONE = "tree.new", "tree.gone"


def is_packed(overlay: Path) -> bool:
    """Whether a tree lies in the overlay."""
    with overlay.open("rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(len(_MAGIC)) == _MAGIC


async def pack(tree: Path, overlay: Path) -> None:
    """Replace what the overlay holds by the tree as it is now; size, mode and owner stay."""
    before = overlay.stat()
    fresh = overlay.with_name(f".{overlay.name}.packed")
    argv = ["tar", "--create", "--sparse", "--numeric-owner", "--xattrs", "--file", str(fresh)]
    await process.run(
        [*_as_owner(fresh.parent, tree), *argv, "--directory", str(tree), "--exclude=./run/*", "."],
        timeout=600,
    )
    with fresh.open("r+b") as file:
        file.truncate(max(before.st_size, fresh.stat().st_size))
    fresh.chmod(before.st_mode & 0o7777)
    if os.geteuid() == 0:
        os.chown(fresh, before.st_uid, before.st_gid)
    fresh.replace(overlay)


async def unpack(overlay: Path, tree: Path) -> None:
    """Make the tree anew from the overlay, or a fresh one when nothing lies in it.

    It appears as a whole: half a tree would be packed over a good disk after a crash.
    """
    await remove(tree)
    fresh = tree.with_name(_FRESH)
    await _remove(fresh)
    fresh.mkdir(parents=True, mode=0o755)
    if is_packed(overlay):
        argv = ["tar", "--extract", "--numeric-owner", "--xattrs", "--preserve-permissions"]
        await process.run(
            [*_as_owner(fresh), *argv, "--file", str(overlay), "--directory", str(fresh)],
            timeout=600,
        )
    else:
        _furnish(fresh)
    for folder in ("run", "run/runtools", "run/lock"):
        (fresh / folder).mkdir(exist_ok=True)
    fresh.rename(tree)


async def remove(tree: Path) -> None:
    """Remove the tree, at one moment; one that is not there is no error."""
    gone = tree.with_name(_GONE)
    await _remove(gone)
    if tree.exists():
        tree.rename(gone)
        await _remove(gone)


async def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    if os.geteuid() == 0:
        await asyncio.to_thread(shutil.rmtree, folder)
    else:
        await process.run([*_as_owner(folder.parent), "rm", "-rf", str(folder)], timeout=600)


def _furnish(tree: Path) -> None:
    for name, mode in _FOLDERS.items():
        (tree / name).mkdir(parents=True, exist_ok=True)
        (tree / name).chmod(mode)
    for name, text in _FILES.items():
        (tree / name).write_text(text)
    (tree / "etc/shadow").chmod(0o600)
    for name in SYSTEM:
        host = Path("/") / name
        if host.is_symlink():
            (tree / name).symlink_to(host.readlink())
        elif host.is_dir():
            (tree / name).mkdir()


def _as_owner(*writable: Path) -> Sequence[str]:
    """For an ordinary user: root of a user namespace, who may read what the sandbox's root closed."""
    if os.geteuid() == 0:
        return ()
    binds = [word for path in writable for word in ("--bind", str(path), str(path))]
    caps = ("--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL")
    return ("bwrap", *caps, "--ro-bind", "/", "/", *binds, "--")
