"""A platform that runs on this machine, driven as its user drives it: by CLI and SDK."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtools.sdk.sync.client import RunTools

RUNTOOLS = str(Path(sys.executable).parent / "runtools")


@dataclass(frozen=True)
class Platform:
    """A platform that runs, as its user sees it."""

    home: Path
    rt: RunTools

    def cli(
        self, *words: str, stdin: bytes = b"", ok: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command of the CLI."""
        done = subprocess.run(
            [RUNTOOLS, *words], input=stdin, capture_output=True, timeout=600, check=False
        )
        if ok:
            assert done.returncode == 0, done.stderr.decode()
        return done

    def pid(self, part: str) -> int:
        """The pid of a part: `up`, `host`, `api`, `worker` or `gateway`; 0 while there is none."""
        if part in ("up", "host"):
            return int((self.home / "run" / f"{part}.lock").read_text() or 0)
        up, words = self.pid("up"), f"\0runtools.platform\0{part}\0".encode()
        for pid in Path(f"/proc/{up}/task/{up}/children").read_text().split():
            with contextlib.suppress(OSError):
                if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        return 0

    def vmm(self, sandbox_id: str) -> int:
        """The pid of a sandbox's QEMU."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes()
                is_qemu = (folder / "comm").read_text().startswith("qemu")
            except OSError:
                continue
            if is_qemu and sandbox_id.encode() in words:
                return int(folder.name)
        raise AssertionError(f"{sandbox_id} has no VMM")


def eventually(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.05)
