"""`python -m bench.watching`: what the watch over running sandboxes costs the host and the guest.

Needs a running platform with a sandbox in it. Figures per sandbox: one look of the history (files of the
host alone), and the guest's own ``stats`` for comparison, which the history does not ask for.
"""

from __future__ import annotations

import time
from pathlib import Path

from runtools import RunTools
from runtools.platform.kit.config import load
from runtools.platform.kit.usage import usage

ROUNDS = 50


def main() -> None:
    settings = load()
    with RunTools() as rt, rt.sandboxes.create() as sandbox:
        folder = settings.host_home / "sandboxes" / sandbox.id
        pid = next(
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and f"guest={sandbox.id}" in _words(int(entry.name))
        )
        began = time.perf_counter()
        for _ in range(ROUNDS):
            usage(pid)
            next(folder.glob("*/overlay.img")).stat()
        host_ms = (time.perf_counter() - began) / ROUNDS * 1000
        before = usage(pid)
        began = time.perf_counter()
        for _ in range(ROUNDS):
            sandbox.stats()
        passed = (time.perf_counter() - began) / ROUNDS * 1000
        after = usage(pid)
        assert before is not None
        assert after is not None
        worked = (after.cpu_seconds - before.cpu_seconds) / ROUNDS * 1000
    print(f"a look by the host      {host_ms:.2f} ms")
    print(f"stats by the guest      {passed:.1f} ms, {worked:.1f} ms of the VMM's processor time")


def _words(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
