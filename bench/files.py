"""Files in and out, ours beside a bare socket copy to and from a file of the same kind of machine."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator

from bench.crowd import born
from bench.floor import Agent, connect
from bench.section import Bench
from bench.table import Row, Series, row

SIZE_MB = 64
SINK = (
    "import socket;s=socket.create_server(('',9000));"
    "c=s.accept()[0];f=open('/workspace/bare','wb')\n"
    "while d:=c.recv(1<<20):f.write(d)\n"
    "c.sendall(b'x')"
)
SOURCE = (
    "import socket;s=socket.create_server(('',9001));"
    "c=s.accept()[0];f=open('/workspace/bare','rb')\n"
    "while d:=f.read(1<<18):c.sendall(d)\n"
    "c.close()"
)


def measure(bench: Bench) -> Iterator[Row]:
    """MB a second, to and from a sandbox."""
    rounds = max(2, bench.rounds // 3)
    data = bytes(SIZE_MB << 20)
    up, up_bare, down, down_bare = (Series() for _ in range(4))
    vm, agent = bench.floor.create()
    box = born(bench.rt)
    for _ in range(rounds):
        up_bare.values.append(_bare(vm.namespace, agent, SINK, 9000, data))
        began = time.perf_counter()
        box.files.write("/workspace/data", io.BytesIO(data))
        up.values.append(SIZE_MB / (time.perf_counter() - began))
        down_bare.values.append(_bare(vm.namespace, agent, SOURCE, 9001, None))
        began = time.perf_counter()
        assert len(box.files.read("/workspace/data")) == len(data)
        down.values.append(SIZE_MB / (time.perf_counter() - began))
    vm.destroy()
    box.destroy()
    yield row("file upload (to disk)", up, up_bare, unit="MB/s")
    yield row("file download (from disk)", down, down_bare, unit="MB/s")


def _bare(namespace: str, agent: Agent, program: str, port: int, data: bytes | None) -> float:
    agent.exec(f'setsid python3 -c "{program}" >/dev/null 2>&1 </dev/null & sleep 0.5')
    sock = connect(namespace, port)
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
