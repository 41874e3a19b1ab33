"""Dev URLs of a real machine: a development server on its loopback, from a paused state."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.vm.conftest import KILL_AGENT

from runtools import errors
from runtools.sdk.sync.sandbox import Sandbox
from runtools.testing.real_platform import Platform, eventually

pytestmark = pytest.mark.vm

# What Vite does: the loopback alone, no host but its own, and a WebSocket for changes beside the pages.
SERVER = r"""
import asyncio, base64, hashlib, sys
PORT, ADDRESS = int(sys.argv[1]), sys.argv[2]
async def serve(reader, writer):
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        fields = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines[1:] if line)}
        if fields.get("host") != f"localhost:{PORT}":
            writer.write(b"HTTP/1.1 403 Host\r\nContent-Length: 0\r\n\r\n")
        elif "upgrade" in fields:
            magic = fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            key = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
            writer.write(f"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         f"Sec-WebSocket-Accept: {key}\r\n\r\n".encode())
            while data := await reader.read(65536):
                writer.write(data)
            return
        elif lines[0].startswith("GET /endless"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        else:
            body = lines[0].encode()
            if "content-length" in fields:
                body = str(len(await reader.readexactly(int(fields["content-length"])))).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
async def main():
    async with await asyncio.start_server(serve, ADDRESS, PORT) as server:
        print("ready", flush=True)
        await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def box(platform: Platform) -> Iterator[Sandbox]:
    with platform.rt.sandboxes.create() as sandbox:
        sandbox.files.write("/server.py", SERVER)
        for port, address in ((5173, "127.0.0.1"), (3000, "::1"), (8000, "0.0.0.0")):
            sandbox.processes.start(["python3", "/server.py", str(port), address])
        eventually(lambda: {5173, 3000, 8000} <= set(sandbox.stats().listening_ports))
        yield sandbox


def test_every_address_is_reached_by_name_too(platform: Platform, box: Sandbox) -> None:
    for port in (5173, 3000, 8000):
        url = platform.cli("sandbox", "url", box.id, "--port", str(port)).stdout.decode().strip()
        assert url == box.url(port)
        assert url.startswith(f"http://{port}-{box.id}.sandboxes.localhost:")
        with box.http(port) as http:
            assert http.get("/hello").text == "GET /hello HTTP/1.1"


def test_a_paused_machine_wakes_and_answers(box: Sandbox) -> None:
    with box.http(5173) as http:
        assert http.get("/").status == 200
        for _ in range(2):
            box.pause()
            assert http.get("/wake").text == "GET /wake HTTP/1.1"
            eventually(lambda: box.refresh().state == "running")


def test_megabytes_go_in(box: Sandbox) -> None:
    with box.http(5173) as http:
        assert http.post("/", os.urandom(20 << 20)).text == str(20 << 20)


@contextmanager
def websocket(box: Sandbox) -> Iterator[socket.socket]:
    """A WebSocket to the server in it."""
    url = box.urls.link(5173).url
    host, _, rest = url.removeprefix("http://").partition("/")
    with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])), timeout=60) as sock:
        sock.sendall(
            f"GET /{rest} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        said = b""
        while b"\r\n\r\n" not in said:
            said += sock.recv(4096)
        assert said.startswith(b"HTTP/1.1 101 ")
        yield sock


HELLO = b"\x82\x85\0\0\0\0hello"


def test_a_websocket_lives_over_a_pause(box: Sandbox) -> None:
    with websocket(box) as sock:
        box.pause()
        began = time.monotonic()
        sock.sendall(HELLO)
        assert sock.recv(4096) == HELLO
        assert time.monotonic() - began < 60
        eventually(lambda: box.refresh().state == "running")


def test_a_gateway_that_is_killed_takes_its_connections_along_and_nothing_else(
    platform: Platform, box: Sandbox, killed: Callable[[str], None]
) -> None:
    others, vmm = ("up", "host", "api", "worker"), platform.vmm(box.id)
    pids = {part: platform.pid(part) for part in others}
    ssh = ("127.0.0.1", int(os.environ["RUNTOOLS_SSH_PORT"]))
    with (
        websocket(box) as sock,
        half_answered(box) as answer,
        socket.create_connection(ssh, timeout=60) as session,
    ):
        sock.sendall(HELLO)
        assert sock.recv(4096) == HELLO
        assert session.recv(8) == b"SSH-2.0-"
        killed("gateway")
        for left in (sock, session):
            assert is_cut(left)
        assert answer.recv(1) == b""  # and no last chunk
    eventually(lambda: answers(box))
    with websocket(box) as sock, socket.create_connection(ssh, timeout=60) as session:
        sock.sendall(HELLO)
        assert sock.recv(4096) == HELLO
        assert session.recv(8) == b"SSH-2.0-"
    assert {part: platform.pid(part) for part in others} == pids
    assert (platform.vmm(box.id), box.refresh().state) == (vmm, "running")


def is_cut(sock: socket.socket) -> bool:
    """Whether it ends at once, and not when its time is up."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def answers(box: Sandbox) -> bool:
    try:
        with box.http(5173) as http:
            return http.get("/after").status == 200
    except errors.GuestUnreachable:
        return False


@contextmanager
def half_answered(box: Sandbox) -> Iterator[socket.socket]:
    """On which half of an answer has come that has no length."""
    url = box.urls.link(5173).url
    host, _, rest = url.removeprefix("http://").partition("/")
    with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])), timeout=60) as sock:
        link = rest.removeprefix("?")
        sock.sendall(f"GET /endless?{link} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        said = b""
        while not said.endswith(b"half\r\n"):  # the chunk that it is
            said += sock.recv(4096)
        assert b"200 OK" in said
        yield sock


def test_an_agent_that_is_killed_makes_no_part_of_an_answer_the_whole(box: Sandbox) -> None:
    with half_answered(box) as answer:
        box.processes.start(["sh", "-c", f"sleep 1; {KILL_AGENT}"])
        with pytest.raises(ConnectionResetError):
            answer.recv(1)
    assert box.exec("true").exit_code == 0


def test_where_nothing_listens_the_ports_are_named(box: Sandbox) -> None:
    with box.http(9) as http:
        answer = http.get("/", headers={"Accept": "text/html"})
    assert answer.status == 503
    assert all(f"{port}-{box.id}" in answer.text for port in (5173, 3000, 8000))


def test_a_fork_has_none_of_its_parents_connections(box: Sandbox) -> None:
    with box.http(5173) as http:
        assert http.get("/").status == 200
        [twin] = box.fork()
        with twin:
            shown = twin.exec(["ss", "-Htn", "state", "established", "sport", "=", ":5173"])
            assert shown.stdout.strip() == "", shown.stdout
            with twin.http(5173) as other:
                assert other.get("/twin").text == "GET /twin HTTP/1.1"
        assert http.get("/again").status == 200
