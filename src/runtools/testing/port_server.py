"""Servers to be reached, run by any Python 3.11 without packages: ``port_server.py KIND [ADDRESS] [PORT]``.

``echo`` returns what comes as it comes, ``last`` all that came once its caller has ended, ``first`` speaks
before it is spoken to, ``sink`` reads nothing, ``flood`` writes for ever, ``count`` says how many bytes
came, ``breaks`` breaks off in what it says. The port is printed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time


def serve(kind: str, sock: socket.socket) -> None:
    """Serve one connection."""
    with sock, contextlib.suppress(OSError):
        if kind == "first":
            sock.sendall(b"welcome\n")
            sock.recv(1)
        elif kind == "breaks":
            sock.sendall(b"welc")
            sock.recv(1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif kind == "sink":
            time.sleep(3600)
        elif kind == "flood":
            while True:
                sock.sendall(b"x" * 65536)
        else:
            _answer(kind, sock)


def _answer(kind: str, sock: socket.socket) -> None:
    came = b""
    count = 0
    while piece := sock.recv(1 << 16):
        count += len(piece)
        if kind == "echo":
            sock.sendall(piece)
        elif kind == "last":
            came += piece
    sock.sendall(str(count).encode() if kind == "count" else came)


def main(kind: str, address: str = "127.0.0.1", port: str = "0") -> None:
    """Serve for ever."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, int(port)), family=family)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(kind, sock), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
