"""A process that has loaded `runtools` already and forks itself for every command of a test.

Each command is a process of its own, with its own arguments, environment, folder, streams and exit
code, only that it need not import everything anew: twenty times as fast. The script reads requests
from the socket that it is given: one JSON line, with stdin, stdout and stderr as open files.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from typing import Any

import runtools.cli.app
import runtools.cli.sandbox_looks
import runtools.cli.screen
import runtools.sdk.sync.client


def serve(requests: socket.socket) -> None:
    """Answer every request with an exit code, until the other side closes."""
    while True:
        line, fds, _, _ = socket.recv_fds(requests, 4 << 20, 3)
        if not line:
            return
        pid = os.fork()
        if pid == 0:
            become(json.loads(line), fds)
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        requests.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def become(request: dict[str, Any], fds: list[int]) -> None:
    """Be the command."""
    code: Any = 1
    try:
        for fd, target in zip(fds, (0, 1, 2), strict=True):
            os.dup2(fd, target)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.argv = ["runtools", *(os.fsdecode(bytes.fromhex(word)) for word in request["argv"])]
        code = runtools.cli.app.run()
    except SystemExit as exit_:
        code = exit_.code or 0
    except Exception:  # noqa: BLE001 - the edge of a process, which would show it so
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
