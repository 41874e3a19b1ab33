"""Dev URLs beside nginx doing the same routing, and through the whole platform into a machine.

The first rows set the gateway alone (a process of its own, over servers of this machine) beside nginx: the
same server behind both, asked by wrk in turns. What limits it is Python on one core. The others go through
gateway, host and guest agent into a virtual machine; the guest's own speed limits them. `./dev bench`
installs nginx and wrk.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from websockets.sync.client import connect as open_websocket
from websockets.sync.server import serve as serve_websocket

from bench.memory import begin_anew, peak_mb, pss_mb, resident_mb
from bench.section import Bench
from bench.table import Row, Series, at_least_floor_times, at_most, at_most_floor_plus, row
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.gateway_world import BOX, KEY, gateway

SOCKETS = 500
PINGS = 200
INSIDE = 8080
GIGABYTE = 1 << 30
# Programs say the same again but for the path, and of that the gateway takes advantage: here nobody does.
UNLIKE = """
local n = 0
request = function()
    n = n + 1
    wrk.headers["Cookie"] = "n=" .. n
    return wrk.format("GET", "/" .. n)
end
"""
SERVER = """
import asyncio
async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 11\\r\\n\\r\\nhello world")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 8080) as server:
        await server.serve_forever()
asyncio.run(main())
"""
NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    keepalive_requests 1000000000;
    server {{ listen 127.0.0.1:{server}; location / {{ return 200 "hello world"; }} }}
    upstream inside {{ server 127.0.0.1:{server}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{proxy};
        server_name "~^(?<port>[0-9]+)-(?<box>sandbox-[a-z0-9]+)\\.sandboxes\\.localhost$";
        location / {{
            proxy_pass http://inside; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header Host localhost:$port;
        }}
    }}
}}
"""


def measure(bench: Bench) -> Iterator[Row]:
    """The gateway alone, then the way into a machine."""
    rounds = 3 if bench.quick else 5
    with ExitStack() as stack:
        server, proxy = stack.enter_context(_nginx(bench.work))
        port, pid = stack.enter_context(_gateway())
        host = f"{server}-{BOX}.sandboxes.localhost"
        unlike = bench.work / "unlike.lua"
        unlike.write_text(UNLIKE)
        for name, more, wanted in (
            ("keep-alive", ["-c32"], [at_least_floor_times(0.4)]),
            ("keep-alive, no two requests alike", ["-c32", "-s", str(unlike)], []),
            ("new connections", ["-c16", "-H", "Connection: close"], [at_least_floor_times(0.2)]),
        ):
            ours, floor = Series(), Series()
            for _ in range(rounds):
                floor.values.append(_wrk(proxy, host, more))
                ours.values.append(_wrk(port, host, more))
            yield row(
                f"dev URL, {name}, beside nginx", ours, floor, unit="requests/s", wanted=wanted
            )
        yield _websocket(port)
        yield _many(port, pid)
        yield from _gigabyte(port, pid)
    yield from _inside(bench, rounds)


@contextmanager
def _nginx(work: Path) -> Iterator[tuple[int, int]]:
    folder = work / "nginx"
    folder.mkdir()
    server, proxy = _free_port(), _free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, server=server, proxy=proxy))
    child = subprocess.Popen(["/usr/sbin/nginx", "-c", str(conf), "-p", str(folder)])
    try:
        _wait(proxy)
        yield server, proxy
    finally:
        child.terminate()
        child.wait()


@contextmanager
def _gateway() -> Iterator[tuple[int, int]]:
    """A gateway in a process of its own; its port and pid."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    child.start()
    try:
        port: int = ours.recv()
        assert child.pid is not None
        yield port, child.pid
    finally:
        child.terminate()
        child.join()


def _serve(told: Connection) -> None:
    async def serve() -> None:
        async with gateway() as made:
            told.send(made.port)
            await asyncio.Event().wait()

    uvloop.run(serve())  # as the gateway process does


def _wrk(port: int, host: str, more: list[str]) -> float:
    """Requests a second."""
    words = ["wrk", "-t1", "-d3", *more, "-H", f"Host: {host}", "-H", f"X-RunTools-Key: {KEY}"]
    said = subprocess.run(
        [*words, f"http://127.0.0.1:{port}/"], check=True, capture_output=True, text=True
    ).stdout
    if "Non-2xx" in said:
        raise AssertionError(said)
    found = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    assert found is not None, said
    return float(found[1])


@contextmanager
def _echo() -> Iterator[int]:
    """A WebSocket server in a process of its own; its port."""
    port = _free_port()
    child = multiprocessing.get_context("spawn").Process(target=_serve_echo, args=(port,))
    child.start()
    try:
        _wait(port)
        yield port
    finally:
        child.terminate()
        child.join()


def _serve_echo(port: int) -> None:
    def echo(sock: object) -> None:
        for message in sock:  # type: ignore[attr-defined]
            sock.send(message)  # type: ignore[attr-defined]

    with serve_websocket(echo, "127.0.0.1", port) as server:
        server.serve_forever()


def _websocket(port: int) -> Row:
    ours, floor = Series(), Series()
    with _echo() as echo:
        name = f"ws://{echo}-{BOX}.sandboxes.localhost:{port}/"
        more = {"X-RunTools-Key": KEY}
        with (
            open_websocket(f"ws://127.0.0.1:{echo}/") as direct,
            open_websocket(name, sock=_socket(port), additional_headers=more) as through,
        ):
            for _ in range(PINGS):
                for sock, series in ((direct, floor), (through, ours)):
                    series.time(lambda sock=sock: (sock.send("x"), sock.recv()))
    return row("WebSocket round trip", ours, floor, wanted=[at_most_floor_plus(0.5)])


def _many(port: int, pid: int) -> Row:
    """Memory of the gateway for idle WebSockets."""
    with _echo() as echo:
        name = f"ws://{echo}-{BOX}.sandboxes.localhost:{port}/"
        before = pss_mb(pid)
        with ExitStack() as stack:
            for _ in range(SOCKETS):
                made = open_websocket(
                    name, sock=_socket(port), additional_headers={"X-RunTools-Key": KEY}
                )
                stack.enter_context(made)
            ours = Series([pss_mb(pid) - before])
    return row(f"{SOCKETS} idle WebSockets, in the gateway", ours, unit="MB", wanted=[at_most(60)])


def _gigabyte(port: int, pid: int) -> Iterator[Row]:
    """An upload, to a server that takes it as fast as it comes; and what the gateway holds of it."""
    piece, ours, floor = bytes(1 << 20), Series(), Series()
    with socket.create_server(("127.0.0.1", 0)) as sink:
        inside = sink.getsockname()[1]
        name = f"{inside}-{BOX}.sandboxes.localhost:{port}"
        said = f"POST / HTTP/1.1\r\nHost: {name}\r\nX-RunTools-Key: {KEY}\r\n"
        head = f"{said}Content-Length: {GIGABYTE}\r\n\r\n".encode()
        begin_anew(pid)
        before = resident_mb(pid)
        for at, series in ((inside, floor), (port, ours)):
            taker = threading.Thread(target=_take, args=(sink,))
            taker.start()
            began = time.perf_counter()
            with _socket(at) as sock:
                sock.sendall(head)
                for _ in range(GIGABYTE >> 20):
                    sock.sendall(piece)
                assert sock.recv(100).startswith(b"HTTP/1.1 200 "), "it was not taken"
            series.values.append((GIGABYTE >> 20) / (time.perf_counter() - began))
            taker.join()
        took = Series([peak_mb(pid) - before])
    yield row("1 GB up, beside the server asked directly", ours, floor, unit="MB/s")
    yield row("… in the gateway meanwhile", took, unit="MB", wanted=[at_most(60)])


def _take(sink: socket.socket) -> None:
    sock, _ = sink.accept()
    with sock:
        came = b""
        while b"\r\n\r\n" not in came:
            came += sock.recv(1 << 20)
        size = len(came.partition(b"\r\n\r\n")[2])
        while size < GIGABYTE:
            size += len(sock.recv(1 << 20))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def _inside(bench: Bench, rounds: int) -> Iterator[Row]:
    """Through everything, into a machine."""
    with bench.rt.sandboxes.create() as box, box.http(INSIDE) as http:
        box.files.write("/server.py", SERVER)
        box.processes.start(["python3", "/server.py"])
        while INSIDE not in box.stats().listening_ports:
            time.sleep(0.05)
        http.get("/")
        asked, command = Series(), Series()
        for _ in range(rounds * 10):
            asked.time(lambda: http.get("/"))
            command.time(lambda: box.exec("true"))
        yield row("GET of a server in a machine, beside a command in it", asked, command)
        woken, resumed = Series(), Series()
        for _ in range(rounds):
            _paused(box)
            resumed.time(box.resume)
            _paused(box)
            woken.time(lambda: http.get("/"))
        yield row(
            "wake by the first request, beside resume",
            woken,
            resumed,
            wanted=[at_most_floor_plus(100)],
        )


def _paused(box: Sandbox) -> None:
    box.pause()
    while not box.refresh().durable:
        time.sleep(0.05)


def _socket(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            _socket(port).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return
