from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from pathlib import Path

import pytest

from runtools.platform.host.drivers.qemu import view
from runtools.platform.kit.process import start_detached, wait_pid_gone


def test_it_outlives_the_event_loop(tmp_path: Path) -> None:
    pid = asyncio.run(start_detached(["sleep", "60"], output=tmp_path / "out"))
    gc.collect()
    try:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


async def test_it_is_reaped(tmp_path: Path) -> None:
    pid = await start_detached(["true"], output=tmp_path / "out")
    await wait_pid_gone(pid)
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)


async def test_who_is_cancelled_waits_for_the_thread_that_starts_it(tmp_path: Path) -> None:
    """The files that the thread was handed by number are closed next, and numbers are given anew."""
    entered, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def entering() -> None:
        entered.set()
        assert go_on.wait(30)
        done.set()

    starting = asyncio.create_task(
        start_detached(["true"], output=tmp_path / "out", entering=entering)
    )
    await asyncio.to_thread(entered.wait)
    for _ in range(2):  # an act may be cancelled by its caller and by the end of the host
        starting.cancel()
        await asyncio.wait({starting}, timeout=0.05)
        assert not starting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert done.is_set()


async def test_a_view_that_is_laid_for_one_who_is_cancelled_is_laid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    laid = []

    async def needed() -> list[str]:
        return []

    def lay(root: str, files: list[str]) -> int:
        entered.set()
        assert go_on.wait(30)
        laid.append(Path(root).is_dir())  # nobody took it away meanwhile
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    monkeypatch.setattr(view, "_needed", needed)
    monkeypatch.setattr(view, "_lay", lay)
    software = view.Software()
    first = asyncio.create_task(software.laid())
    await asyncio.to_thread(entered.wait)
    first.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert os.fstat(await software.laid())
    assert laid == [True]
