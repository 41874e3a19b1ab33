"""The commands of ``python -m runtools.platform``, each a line that names who does it.

Each process loads its own part only: the api nothing of the host, and ``setup`` neither.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from runtools.errors import RunToolsError
from runtools.platform.kit import config, crash, descriptors, log
from runtools.platform.kit.files import FULL

Command = Callable[[config.Settings, argparse.Namespace], Coroutine[Any, Any, int]]


def _part(name: str) -> Any:
    return importlib.import_module(f"runtools.platform.boot.{name}")


async def _setup(settings: config.Settings, _: argparse.Namespace) -> int:
    await _part("setup").setup(lambda line: print(line, file=sys.stderr, flush=True))
    return 0


async def _up(settings: config.Settings, args: argparse.Namespace) -> int:
    up, environ = _part("up"), dict(config.environment())
    for name, file in (("CERT", args.tls_cert), ("KEY", args.tls_key)):
        if file is not None:  # to all parts it is the setting
            environ[f"RUNTOOLS_GATEWAY_TLS_{name}"] = str(Path(file).absolute())
            settings = config.load(environ)
    if args.detach:
        return int(await up.detached(settings, environ))
    return int(await up.foreground(settings, environ, patient=not args.impatient))


async def _down(settings: config.Settings, _: argparse.Namespace) -> int:
    return int(await _part("up").down(settings, config.environment()))


async def _status(settings: config.Settings, _: argparse.Namespace) -> int:
    return int(await _part("status").show(settings))


async def _doctor(settings: config.Settings, _: argparse.Namespace) -> int:
    return int(await _part("doctor").show(settings, _part("host").driver(settings)))


async def _migrate(settings: config.Settings, args: argparse.Namespace) -> int:
    return int(await _part("api").migrate(settings, need_key=args.need_key))


async def _rekey(settings: config.Settings, args: argparse.Namespace) -> int:
    if args.here:
        return int(await _part("api").rekey(settings))
    return int(await _part("up").as_owner(settings, config.environment(), ["rekey"]))


async def _strays(settings: config.Settings, args: argparse.Namespace) -> int:
    if args.here:
        return int(await _part("strays").serve(settings, args.act, args.sandbox, args.org))
    words = ["strays", args.act, *([args.sandbox] if args.sandbox else [])]
    words += ["--org", args.org] if args.org else []
    return int(await _part("up").as_owner(settings, config.environment(), words))


async def _api(settings: config.Settings, _: argparse.Namespace) -> int:
    return int(await _part("api").serve(settings))


async def _worker(settings: config.Settings, args: argparse.Namespace) -> int:
    return int(await _part("worker").serve(settings, args.name))


async def _gateway(settings: config.Settings, _: argparse.Namespace) -> int:
    return int(await _part("gateway").serve(settings))


async def _host(settings: config.Settings, args: argparse.Namespace) -> int:
    if args.pause_all:
        return int(await _part("host").pause_all(settings))
    return int(await _part("host").serve(settings, args.socket_uid, args.socket_gid))


_COMMANDS: dict[str, Command] = {
    "setup": _setup,
    "up": _up,
    "down": _down,
    "status": _status,
    "doctor": _doctor,
    "migrate": _migrate,
    "rekey": _rekey,
    "strays": _strays,
    "api": _api,
    "host": _host,
    "worker": _worker,
    "gateway": _gateway,
}


def _loop(command: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What a part runs on, where it is not asyncio's own loop (decision 0049)."""
    if command != "gateway":
        return None
    import uvloop  # noqa: PLC0415 - no other part has a use for it

    return uvloop.new_event_loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runtools", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in _COMMANDS:
        sub = commands.add_parser(name)
        if name == "up":
            sub.add_argument("--detach", action="store_true", help="return when it answers")
            sub.add_argument(
                "--impatient", action="store_true", help="end where a part cannot live"
            )
            sub.add_argument("--tls-cert", help="what dev URLs are served with")
            sub.add_argument("--tls-key", help="its key, if it is in another file")
        if name == "migrate":
            sub.add_argument("--need-key", action="store_true", help="print a key in any case")
        if name == "strays":
            sub.add_argument("act", choices=("list", "adopt", "destroy"))
            sub.add_argument("sandbox", nargs="?")
            sub.add_argument("--org")
        if name in ("rekey", "strays"):
            sub.add_argument("--here", action="store_true", help="in this process, as this user")
        if name == "worker":
            sub.add_argument("--name", help="that of the worker whose place it takes")
        if name == "host":
            sub.add_argument("--socket-uid", type=int, default=os.geteuid())
            sub.add_argument("--socket-gid", type=int, default=os.getegid())
            sub.add_argument("--pause-all", action="store_true", help="pause what runs, and end")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run one command; returns its exit code. A refusal is one line with its hint, and 1."""
    args = _parser().parse_args(argv)
    log.configure(args.command)
    descriptors.raise_limit()
    try:
        settings = config.load()
        crash.arm(settings.crash_at)
        with asyncio.Runner(loop_factory=_loop(args.command)) as runner:
            return runner.run(_COMMANDS[args.command](settings, args))
    except RunToolsError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        if exc.hint:
            print(f"hint:  {exc.hint}", file=sys.stderr)
        return 1
    except OSError as exc:
        said = _of_file(exc)
        if said is None:
            raise
        print(f"error: {exc.filename}: {said[0]}\nhint:  {said[1]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _of_file(exc: OSError) -> tuple[str, str] | None:
    """What is wrong with a file, and what to do; None: it is no fault of whoever asked."""
    if exc.filename is None:
        return None
    if isinstance(exc, PermissionError):
        return "permission denied", "ask as root, or as the user whose home it is"
    if exc.errno in FULL:
        return "the disk is full", "make room on the disk of the home, then try again"
    return None
