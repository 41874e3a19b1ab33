"""Processes made by forking one that has imported everything: a start costs 20 ms instead of seconds.

`Maker` starts the one that forks and asks it for more; `make_on_demand` is what that one does. It reads
JSON lines and answers each with one: ``{"start": order, "log": path}`` with a pid, ``{"wait": pid}`` with
how that one ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Maker:
    """Makes processes of one module, each of which dies alone.

    Args:
        words: the module, whose main calls `make_on_demand`, and its arguments.
    """

    def __init__(self, *words: str) -> None:
        argv = [sys.executable, "-m", *words]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._turn = threading.Lock()
        self._answer()

    async def start(self, order: Mapping[str, Any], log: Path) -> int:
        """The pid of a fresh process that carries out the order."""
        return await self._ask({"start": dict(order), "log": str(log)})

    async def wait(self, pid: int) -> int:
        """How a process ended: its exit code, or a signal's number below zero."""
        return await self._ask({"wait": pid})

    def close(self) -> None:
        """End it; what it made lives on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    async def _ask(self, order: dict[str, Any]) -> int:
        return int(await asyncio.to_thread(self._asked, json.dumps(order).encode()))

    def _asked(self, line: bytes) -> bytes:
        assert self._process.stdin is not None
        with self._turn:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def make_on_demand(run: Callable[[dict[str, Any]], None]) -> None:
    """Serve a `Maker`: each order is run by a fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            answer = os.fork()
            if answer == 0:
                _become(run, asked["start"], asked["log"])
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
        print(answer, flush=True)  # noqa: T201


def _become(run: Callable[[dict[str, Any]], None], order: dict[str, Any], log: str) -> None:
    """What a fork does instead of going on."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(fd, target)
    code = 1
    try:
        run(order)
        code = 0
    except Exception:  # noqa: BLE001 - the edge of a process, which would show it so
        traceback.print_exc()
    finally:
        os._exit(code)
