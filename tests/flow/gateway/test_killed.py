"""A gateway that is killed while the last of an answer waits in it."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys

import pytest

from runtools.testing.gateway_world import BOX, KEY

# A gateway, and in the same process a server that ends its answer as soon as some of it waits for the
# visitor; once the gateway has taken that for the end of the answer, the process is killed.
GATEWAY = """
import asyncio, os, signal, sys
import uvloop
from runtools.testing.gateway_world import gateway

async def main():
    async with gateway() as gate:
        async def serve(reader, writer):
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
            [visit] = gate.house._visits
            while not visit._transport.get_write_buffer_size():
                writer.write(b"x" * 16384)
                await writer.drain()
                await asyncio.sleep(0.005)
            writer.write_eof()
            while visit._upstream is not None:
                await asyncio.sleep(0.001)
            assert visit._transport.get_write_buffer_size()
            os.kill(os.getpid(), signal.SIGKILL)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        print(gate.port, server.sockets[0].getsockname()[1], flush=True)
        await asyncio.sleep(60)

uvloop.run(main())
"""


def test_does_not_make_the_rest_look_whole() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", GATEWAY], stdout=subprocess.PIPE) as child,
        socket.socket() as sock,
    ):
        assert child.stdout is not None
        port, inside = map(int, child.stdout.readline().split())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", port))
        host = f"Host: {inside}-{BOX}.sandboxes.localhost:{port}\r\nX-RunTools-Key: {KEY}\r\n"
        sock.sendall(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        assert child.wait(60) == -9
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
