"""Files in and out, ours beside a bare socket copy into the same kind of machine."""

from __future__ import annotations

import io
import socket
import time

from bench.floor import Agent, Floor, _connect
from bench.table import Row, Series, row
from runtools import RunTools

SIZE_MB = 64
SINK = (
    "import socket;s=socket.create_server(('',9000));"
    "c=s.accept()[0];n=0\n"
    "while d:=c.recv(1<<20):n+=len(d)\n"
    "c.sendall(b'x')"
)
SOURCE = (
    "import socket;s=socket.create_server(('',9001));"
    f"c=s.accept()[0];c.sendall(bytes({SIZE_MB}<<20));c.close()"
)


def transfers(rt: RunTools, floor: Floor, rounds: int) -> list[Row]:
    """MB a second, to and from a sandbox."""
    rounds = max(2, rounds // 3)
    data = bytes(SIZE_MB << 20)
    vm, agent = floor.create()
    up_bare = Series([_bare(vm.namespace, agent, SINK, 9000, data) for _ in range(rounds)])
    down_bare = Series([_bare(vm.namespace, agent, SOURCE, 9001, None) for _ in range(rounds)])
    vm.destroy()
    up, down = Series(), Series()
    with rt.sandboxes.create(idle_timeout_seconds=0) as box:
        for _ in range(rounds):
            began = time.perf_counter()
            box.files.write("/workspace/data", io.BytesIO(data))
            up.values.append(SIZE_MB / (time.perf_counter() - began))
            began = time.perf_counter()
            assert len(box.files.read("/workspace/data")) == len(data)
            down.values.append(SIZE_MB / (time.perf_counter() - began))
    return [
        row("file upload", up, up_bare, unit="MB/s"),
        row("file download", down, down_bare, unit="MB/s"),
    ]


def _bare(namespace: str, agent: Agent, program: str, port: int, data: bytes | None) -> float:
    agent.exec(f'setsid python3 -c "{program}" >/dev/null 2>&1 </dev/null & sleep 0.5')
    sock = _connect(namespace, port)
    began = time.perf_counter()
    if data is not None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    else:
        while sock.recv(1 << 20):
            pass
    took = time.perf_counter() - began
    sock.close()
    return SIZE_MB / took
