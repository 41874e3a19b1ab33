"""``python3 -S -m runtools.guest``: the agent of a sandbox. Without arguments: of a real machine."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import sys

from runtools.guest import protocol
from runtools.guest.cradle import Cradle
from runtools.guest.execs import Execs
from runtools.guest.groups import open_groups
from runtools.guest.holder import hold
from runtools.guest.journal import Journal
from runtools.guest.ops import Ops
from runtools.guest.paths import Root
from runtools.guest.processes import Processes
from runtools.guest.records import Records
from runtools.guest.server import Server, Token
from runtools.guest.stats import Meter


def main() -> None:
    """Set up and serve."""
    args = _arguments()
    root = Root(args.root)
    os.makedirs(args.state, mode=0o700, exist_ok=True)
    try:
        token = Token(args.token_file)
    except (OSError, ValueError) as exc:
        sys.exit(f"no token to ask callers for: {exc}")
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # a command inherits what is ignored
    groups = open_groups(args.cgroup or ("own" if root.real else "none"))
    cradle = Cradle(hold)  # before there are threads and connections
    listener, port = _listen(args.listen)
    execs = Execs(root, groups)
    records = Records(root, execs)
    ops = Ops(
        root,
        execs,
        Processes(records, execs, cradle),
        Journal(f"{args.state}/journal"),
        Meter(port),
        token.replace,
        args.disk,
    )
    ops.recover()
    # All that was made so far stays: the collector need not look at it, nor dirty its pages.
    gc.collect()
    gc.freeze()
    Server(listener, token, ops).run()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="runtools.guest", description=__doc__)
    parser.add_argument("--root", default="/", help="where the machine's files begin")
    parser.add_argument("--listen", default=f"0.0.0.0:{protocol.PORT}", help="host:port, unix:path")
    parser.add_argument("--token-file", default="/run/runtools/token")
    parser.add_argument("--state", default="/run/runtools", help="folder, on tmpfs, of the journal")
    parser.add_argument("--cgroup", default="", help="own, none, or the folder to make groups in")
    parser.add_argument("--disk", default="/dev/vdb", help="the device of the writable layer")
    return parser.parse_args()


def _listen(where: str) -> tuple[socket.socket, int]:
    if where.startswith("unix:"):
        path = where.removeprefix("unix:")
        if os.path.exists(path):
            os.unlink(path)  # left by the agent before this one
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(128)
        return listener, 0
    host, _, port = where.rpartition(":")
    return socket.create_server((host, int(port)), backlog=128), int(port)


if __name__ == "__main__":
    main()
