"""The host part as a process of its own, to be killed: ``python -m runtools.testing.host_process KIND``.

``local`` runs local machines, ``qemu`` is the real host. Settings come from the environment as always,
``RUNTOOLS_HOME`` and ``RUNTOOLS_CRASH_AT`` (the point at which it kills itself) among them. It answers
on ``HOME/run/host.sock``.

With ``--forks`` it starts no host but makes them on demand (`forks`), each by an environment of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial

from runtools.platform.boot import host as real_host
from runtools.platform.host.server import serving
from runtools.platform.kit import config, crash, log
from runtools.testing.forks import make_on_demand
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


def _forked(kind: str, environment: dict[str, str]) -> None:
    log.configure("host")
    asyncio.run(_run(kind, environment))


if __name__ == "__main__":
    if sys.argv[2:] == ["--forks"]:
        make_on_demand(partial(_forked, sys.argv[1]))
    else:
        _forked(sys.argv[1], dict(config.environment()))
