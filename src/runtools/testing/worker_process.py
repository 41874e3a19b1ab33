"""Worker processes for tests, to be killed at will: forked from one that has imported everything.

    python -m runtools.testing.worker_process      reads orders from stdin, one JSON line each

The script works in the sandbox so that each act leaves exactly one trace: a line in a ledger for every
command, a line in a file for every edit. What is lost or done twice can be counted afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio._backends._asyncio  # noqa: F401 - imported here, it is in each life already
import genai_prices.data  # noqa: F401

from runtools.platform.agents.service import Post, serve
from runtools.platform.agents.socket import SocketLink
from runtools.platform.core.ports.worker import News
from runtools.platform.kit import crash
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.outbound import Outbound, networks
from runtools.testing.fake_runs import TOKEN
from runtools.testing.scripted_model import Call, Script

LEDGER, EDITED = "/workspace/ledger", "/workspace/edited"


def step(number: int) -> list[Any]:
    """What the model wants done in one step: a command, and in every second one an edit beside it."""
    line = f"echo {number} >> {LEDGER}; sleep 0.03; echo wrote {number}"
    calls: list[Any] = [f"Step {number}.", Call("bash", {"command": line})]
    if number % 2:
        edit = {"path": EDITED, "old": "end\n", "new": f"{number}\nend\n"}
        calls.append(Call("edit_file", edit))
    return calls


def script(steps: int) -> Script:
    """The whole of it."""
    return Script(*(step(number) for number in range(steps)), ["All is done."])


def _append_in_turn() -> None:
    """Have one append on its way at a time: who dies after one has not sent the next."""
    turn, append = asyncio.Lock(), SocketLink.append

    async def in_turn(*args: Any, **more: Any) -> News:
        async with turn:
            return await append(*args, **more)

    SocketLink.append = in_turn  # type: ignore[method-assign]


async def _work(order: dict[str, Any]) -> None:
    if order["crash_at"]:
        _append_in_turn()
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    model, outbound = script(order["steps"]).model(), Outbound(networks("127.0.0.0/8"))
    post = Post(
        url=order["url"],
        token=order["token"],
        id=order.get("id") or f"worker-{os.getpid()}",
        slots=order.get("slots", 4),
        build=lambda _: model,
        outbound=outbound,
        clock=SystemClock(),
        api_url=order["api"],
    )
    await serve(post, ending)


def _say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    """Fork a worker for every order, and say how it ended when asked."""
    _say("ready")
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _say(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]))
            continue
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)
            crash.arm(order["crash_at"])
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(_work(order))
            os._exit(0)
        _say(pid)


class Makers:
    """Makes worker processes."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._turn = threading.Lock()
        self._living: set[int] = set()
        assert self._process.stdout is not None
        self._process.stdout.readline()

    async def start(
        self, url: str, api: str, steps: int, crash_at: str = "", token: str = TOKEN, name: str = ""
    ) -> int:
        """The pid of a fresh one; ``name``: it takes the place of the one that had it."""
        told = {"url": url, "api": api, "steps": steps, "crash_at": crash_at}
        pid = await self._ask({**told, "token": token, "id": name})
        self._living.add(pid)
        return pid

    async def wait(self, pid: int) -> int:
        """How it ended."""
        code = await self._ask({"wait": pid})
        self._living.discard(pid)
        return code

    def close(self) -> None:
        """End them all, and the one that forks."""
        for pid in self._living:
            os.kill(pid, signal.SIGKILL)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    @staticmethod
    def is_dead(pid: int) -> bool:
        """Whether one has ended, and nobody has asked how."""
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    async def _ask(self, order: dict[str, Any]) -> int:
        return int(await asyncio.to_thread(self._asked, json.dumps(order).encode()))

    def _asked(self, line: bytes) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
            return self._process.stdout.readline()


if __name__ == "__main__":
    main()
