from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path

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
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)
