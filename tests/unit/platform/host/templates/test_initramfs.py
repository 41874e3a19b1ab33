"""The first root of a machine: archives that a kernel would unpack, modules in an order that loads."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from runtools.platform.host.templates import cpio
from runtools.platform.host.templates.initramfs import (
    WANTED,
    NoSuchModule,
    initrd_with_token,
    load_order,
    make_initramfs,
    plain_name,
)

DEPENDENCIES = """\
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/virtio/virtio_mmio.ko.xz:
kernel/drivers/block/virtio_blk.ko.xz:
kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/fs/overlayfs/overlay.ko.xz:
"""
BUILTIN = "kernel/fs/ext4/ext4.ko\nkernel/lib/crc16.ko\n"


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content of everything in one or several archives."""
    found, at = {}, 0
    while at < len(archive):
        if archive[at : at + 6] != b"070701":
            assert archive[at : at + 4] == bytes(4)
            at += 4
            continue
        field = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = field[1], field[6], field[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        body = at + (110 + name_size + 3) // 4 * 4
        found[name] = (mode, archive[body : body + size])
        at = body + (size + 3) // 4 * 4
    return found


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder such as a kernel's package brings."""
    folder = tmp_path / "modules"
    for line in DEPENDENCIES.splitlines():
        file = folder / line.partition(":")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lzma.compress(file.name.encode()))
    (folder / "modules.dep").write_text(DEPENDENCIES)
    (folder / "modules.builtin").write_text(BUILTIN)
    return folder


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    path = tmp_path / "busybox"
    path.write_bytes(b"\x7fELF busybox")
    return path


class TestLoadOrder:
    def test_each_after_what_it_needs(self) -> None:
        order = [plain_name(path) for path in load_order(DEPENDENCIES, BUILTIN)]
        assert order.index("failover.ko") < order.index("net_failover.ko")
        assert order.index("net_failover.ko") < order.index("virtio_net.ko")
        assert order.index("libcrc32c.ko") < order.index("erofs.ko")
        assert len(order) == len(set(order)) == 8

    def test_what_is_built_in_is_left_out(self) -> None:
        assert "ext4.ko" not in [plain_name(p) for p in load_order(DEPENDENCIES, BUILTIN)]

    def test_a_kernel_without_one_is_refused(self) -> None:
        with pytest.raises(NoSuchModule, match="ext4"):
            load_order(DEPENDENCIES, "")


class TestMakeInitramfs:
    async def test_holds_script_busybox_and_unpacked_modules(
        self, modules: Path, busybox: Path, tmp_path: Path
    ) -> None:
        await make_initramfs(busybox, modules, tmp_path / "initrd")
        found = entries((tmp_path / "initrd").read_bytes())
        assert found["init"][1].startswith(b"#!/bin/sh")
        assert found["init"][0] == 0o100755
        assert found["bin/sh"] == (0o120777, b"busybox")
        assert found["modules/erofs.ko"][1] == b"erofs.ko.xz"
        assert len(found["modules/order"][1].split()) == 8

    async def test_every_program_of_the_script_is_there(
        self, modules: Path, busybox: Path, tmp_path: Path
    ) -> None:
        await make_initramfs(busybox, modules, tmp_path / "initrd")
        found = entries((tmp_path / "initrd").read_bytes())
        script = found["init"][1].decode()
        for program in ("mount", "insmod", "mknod", "usleep", "ip", "mv", "chmod", "switch_root"):
            assert f"{program} " in script
            assert f"bin/{program}" in found

    def test_the_script_is_one_that_a_shell_takes(self, tmp_path: Path) -> None:
        source = Path(cpio.__file__).with_name("initramfs.sh")
        subprocess.run(["busybox", "sh", "-n", source], check=True)

    def test_wanted_modules_cover_both_disks_and_the_network(self) -> None:
        assert {"virtio_blk", "virtio_net", "erofs", "ext4", "overlay"} <= set(WANTED)


class TestToken:
    def test_is_appended_and_the_owners_alone(self, tmp_path: Path) -> None:
        shared = tmp_path / "initrd"
        shared.write_bytes(cpio.archive([cpio.file("init", b"#!/bin/sh", 0o755)]))
        out = tmp_path / "boot"
        initrd_with_token(shared, "secret", out)
        assert out.stat().st_mode & 0o777 == 0o600
        found = entries(out.read_bytes())
        assert found["runtools-token"] == (0o100600, b"secret")
        assert "init" in found

    def test_a_reused_file_is_made_private_again(self, tmp_path: Path) -> None:
        shared = tmp_path / "initrd"
        shared.write_bytes(cpio.archive([]))
        out = tmp_path / "boot"
        out.write_bytes(b"x")
        out.chmod(0o644)
        initrd_with_token(shared, "secret", out)
        assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox to unpack with")
def test_another_program_unpacks_what_we_pack(tmp_path: Path) -> None:
    data = cpio.archive(
        [cpio.folder("a"), cpio.file("a/b", b"hello", 0o640), cpio.link("a/c", "b")]
    )
    subprocess.run(["busybox", "cpio", "-i"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "a/c").read_text() == "hello"
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o640
