"""A program inside a root that is being built sees that root, and can do little beyond it."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from runtools.platform.host.templates.chroot import TIED, run_inside
from runtools.platform.kit import process

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="builds are root's"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="needs a static busybox as system"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The smallest system: busybox, and a folder for everything that is mounted."""
    root = tmp_path / "root"
    for name in ("bin", "dev", "proc", "run", "tmp", "etc", "workspace"):
        (root / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    (root / "etc/resolv.conf").touch()
    return root


async def said(root: Path, line: str, **how: object) -> list[str]:
    lines: list[str] = []
    await run_inside(root, ["/bin/sh", "-c", line], lines.append, **how)  # type: ignore[arg-type]
    return lines


async def test_sees_its_own_files_alone(root: Path) -> None:
    assert set(await said(root, "busybox ls /")) == {p.name for p in root.iterdir()}


async def test_changes_stay_in_the_root(root: Path) -> None:
    await said(root, "echo hello > /workspace/file; busybox ln -s /etc /workspace/out")
    assert (root / "workspace/file").read_text() == "hello\n"


@pytest.mark.parametrize(
    "line",
    [
        "busybox mount -t tmpfs none /workspace",
        "busybox mknod /workspace/disk b 8 0",
        "busybox hostname other",
        "cd /proc/sys/kernel; read -r old < core_pattern; echo $old > core_pattern",
        "busybox cat /proc/kmsg /proc/kpageflags",
        "busybox ls /sys/kernel",
    ],
)
async def test_may_not_reach_beyond_its_files(root: Path, line: str) -> None:
    with pytest.raises(process.CommandFailed):
        await said(root, line)


async def test_may_do_what_packages_need(root: Path) -> None:
    line = "cd /workspace; echo > f; busybox chown 33:33 f; busybox chmod 4755 f"
    await said(root, line)
    stat = (root / "workspace/f").stat()
    assert (stat.st_uid, stat.st_mode & 0o7777) == (33, 0o4755)


async def test_shared_temporary_folder_is_everybodys(root: Path) -> None:
    assert await said(root, "busybox stat -c %a /tmp") == ["1777"]


async def test_nothing_of_our_environment_goes_in(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "value")
    lines = await said(root, "export", env={"GIVEN": "one"})
    assert any("GIVEN" in line for line in lines)
    assert not any("SECRET" in line for line in lines)


async def test_a_shown_file_can_be_read_and_not_written(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("kept")
    await said(root, "echo gone > /run/script || true", shown={file: "/run/script"})
    assert file.read_text() == "kept"


async def test_what_it_leaves_running_ends_with_it(root: Path) -> None:
    seconds = f"7654.{os.getpid()}"  # the same test may run beside this one
    await said(root, f"busybox sleep {seconds} >/dev/null 2>&1 & busybox true")
    await _gone(seconds)  # bubblewrap hears of the end a moment before its last processes are gone


async def test_a_cancelled_one_ends_with_all_that_it_started(root: Path) -> None:
    started = asyncio.Event()
    seconds = f"8765.{os.getpid()}"
    line = f"busybox setsid busybox sleep {seconds} & echo go; busybox sleep {seconds}"
    task = asyncio.create_task(run_inside(root, ["/bin/sh", "-c", line], lambda _: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone("8765.4")


async def test_a_tied_one_takes_strangers_children_along() -> None:
    """As mmdebstrap has them: children in sessions of their own."""
    started = asyncio.Event()
    argv = [*TIED, "sh", "-c", "setsid sleep 9876.5 & echo go; sleep 9876.5"]
    task = asyncio.create_task(process.stream(argv, lambda _: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone("9876.5")


def _running(mark: str) -> bool:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[-2:-1] == [mark.encode()] and b"sleep" in words:
            return True
    return False


async def _gone(mark: str) -> None:
    async with asyncio.timeout(60):
        while _running(mark):
            await asyncio.sleep(0.02)
