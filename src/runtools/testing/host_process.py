"""The host part as a process of its own, to be killed: ``python -m runtools.testing.host_process KIND``.

``local`` runs local machines, ``qemu`` is the real host. Settings come from the environment as always,
``RUNTOOLS_HOME`` and ``RUNTOOLS_CRASH_AT`` (the point at which it kills itself) among them. It answers
on ``HOME/run/host.sock``.

With ``--forks`` it starts no host but makes them on demand, each a process that dies alone: a start then
costs 20 ms instead of a second of imports. It reads JSON lines and answers each with one:
``{"start": {environment}, "log": path}`` with a pid, ``{"wait": pid}`` with how that one ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from runtools.platform.boot import host as real_host
from runtools.platform.host.server import serving
from runtools.platform.kit import config, crash, log
from runtools.testing.local_host import local_host


async def _local(settings: config.Settings) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    host = local_host(settings)
    await host.start()
    async with serving(host, settings.host_socket):
        await ended.wait()
    await host.stop()


async def _qemu(settings: config.Settings) -> None:
    await real_host.serve(settings, os.geteuid(), os.getegid())


_KINDS: dict[str, Callable[[config.Settings], Awaitable[None]]] = {"local": _local, "qemu": _qemu}


async def _run(kind: str, environment: dict[str, str]) -> None:
    settings = config.load(environment)
    crash.arm(settings.crash_at)
    settings.run_folder.mkdir(parents=True, exist_ok=True)
    await _KINDS[kind](settings)


def _child(kind: str, order: dict[str, Any]) -> None:
    """What a fork does instead of going on."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(fd, target)
    code = 1
    try:
        log.configure("host")
        asyncio.run(_run(kind, order["start"]))
        code = 0
    finally:
        os._exit(code)


def _make_on_demand(kind: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer = os.fork()
            if answer == 0:
                _child(kind, order)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        print(answer, flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[2:] == ["--forks"]:
        _make_on_demand(sys.argv[1])
    else:
        log.configure("host")
        asyncio.run(_run(sys.argv[1], dict(config.environment())))
