"""One connection, seen from the agent: whole frames over a blocking socket.

A peer that stops in the middle of a frame, or does not read what it asked for, loses the connection
after `STALL_SECONDS`; waiting for the next request has no limit.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

from runtools.guest import protocol
from runtools.guest.problems import Problem
from runtools.guest.protocol import BYTES, END, HEADER, JSON, BadFrame

STALL_SECONDS: Final = 120
HELLO_SECONDS: Final = 10
_RECV: Final = 64 << 10
_PIPE: Final = 1 << 20
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def write_all(fd: int, data: bytes) -> None:
    """Write all of it to a file."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Gone(Exception):
    """The peer closed, stalled or broke the protocol; nothing more can be said to it."""


def ok(answer: object) -> bytes:
    """The frame of a good answer."""
    return protocol.frame(JSON, _encode({"ok": answer}).encode())


def failed(problem: Problem) -> bytes:
    """The frame of a bad one."""
    return protocol.frame(JSON, problem.to_json())


class Conn:
    """Reads and writes frames. Used by one thread, but `abort` may be called by any."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.busy = False
        self.last = False  # no further request is wanted
        self._buffer = b""
        self._body_open = False
        self._left = 0  # of the frame of a body that is being read
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._set_timeout(socket.SO_SNDTIMEO, STALL_SECONDS)
        self._set_timeout(socket.SO_RCVTIMEO, HELLO_SECONDS)

    def hello(self) -> dict[str, Any]:
        """The first message; until it came, little is read and little time is given."""
        request, _ = self._message(protocol.MAX_HELLO, patient=False)
        self._set_timeout(socket.SO_RCVTIMEO, STALL_SECONDS)
        return request

    def request(self) -> tuple[dict[str, Any], bytes]:
        """The next request, parsed and raw; waits for it as long as it takes."""
        return self._message(protocol.MAX_JSON, patient=True)

    def send(self, data: bytes) -> None:
        """Send whole frames."""
        try:
            self.sock.sendall(data)
        except OSError as exc:
            raise Gone(str(exc)) from exc

    def expect_body(self) -> None:
        """The request said that a body follows it."""
        self._body_open = True

    def body(self) -> Iterator[bytes]:
        """The bytes of the body that follows the request.

        Raises:
            Gone: the sender gave up or broke off.
        """
        while self._next_frame():
            while self._left:
                yield self._piece()

    def body_into(self, fd: int) -> None:
        """Write the body to a file, from the socket's pages to the file's: no byte passes through here.

        Raises:
            Gone: the sender gave up or broke off.
            OSError: the file took no more.
        """
        out, into = os.pipe2(os.O_CLOEXEC)
        try:
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE)
            while self._next_frame(ahead=0):
                while self._left:
                    if self._buffer:
                        write_all(fd, self._piece())
                    else:
                        self._splice(into, out, fd)
        finally:
            os.close(out)
            os.close(into)

    def drain_body(self) -> None:
        """Read and drop the rest of the body, whether the sender means it or not."""
        while self._body_open:
            while self._left:
                self._piece()
            kind, self._left = self._header()
            if kind != BYTES:
                self._exactly(self._left)
                self._left = 0
                self._body_open = False

    def hand_over(self) -> tuple[socket.socket, bytes]:
        """The connection as a bare socket, and what came on it already; nothing more is said here."""
        early, self._buffer = self._buffer, b""
        self.last = True
        return self.sock.dup(), early

    def is_gone(self) -> bool:
        """Whether the peer has closed, as far as can be seen without reading."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Break off without a farewell that would linger in the network stack."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was gone already

    def close(self) -> None:
        """Close."""
        self.sock.close()

    def _message(self, limit: int, *, patient: bool) -> tuple[dict[str, Any], bytes]:
        if not self._buffer:
            self._buffer = self._recv(patient=patient)
        kind, length = self._header(limit)
        if kind != JSON:
            raise Gone(f"a frame of kind {kind} where a request was due")
        payload = self._exactly(length)
        try:
            request = json.loads(payload)
        except (ValueError, RecursionError) as exc:
            raise Gone("a request that is not JSON") from exc
        if not isinstance(request, dict):
            raise Gone("a request that is no object")
        return request, payload

    def _header(self, limit: int = protocol.MAX_JSON, ahead: int = _RECV) -> tuple[int, int]:
        try:
            return protocol.parse_header(self._exactly(HEADER.size, ahead), json_limit=limit)
        except BadFrame as exc:
            raise Gone(str(exc)) from exc

    def _exactly(self, count: int, ahead: int = _RECV) -> bytes:
        """So many bytes; up to ``ahead`` may be taken in with them, for what comes next."""
        have = self._buffer
        if len(have) < count:
            parts, size = [have], len(have)
            while size < count:
                parts.append(self._recv(max(ahead, min(count - size, protocol.CHUNK))))
                size += len(parts[-1])
            have = b"".join(parts)
        self._buffer = have[count:]
        return have[:count]

    def _next_frame(self, ahead: int = _RECV) -> bool:
        """Go on to the next frame of a body; False at its end."""
        if not self._body_open:
            return False
        kind, length = self._header(ahead=ahead)
        if kind == END:
            self._body_open = False
            if length:
                self._exactly(length)
                raise Gone("the sender gave up")
            return False
        if kind != BYTES:
            raise Gone(f"a frame of kind {kind} within a body")
        self._left = length
        return True

    def _piece(self) -> bytes:
        """What is there of the frame that is being read."""
        if not self._buffer:
            self._buffer = self._recv(min(max(self._left, HEADER.size), protocol.CHUNK))
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        return piece

    def _splice(self, into: int, out: int, fd: int) -> None:
        try:
            count = os.splice(self.sock.fileno(), into, min(self._left, _PIPE))
        except BlockingIOError as exc:
            raise Gone("it stalled") from exc
        except OSError as exc:
            raise Gone(str(exc)) from exc
        if not count:
            raise Gone("it closed")
        self._left -= count
        while count:
            count -= os.splice(out, fd, count)

    def _recv(self, size: int = _RECV, *, patient: bool = False) -> bytes:
        while True:
            try:
                data = self.sock.recv(size)
            except BlockingIOError as exc:
                if patient:
                    continue
                raise Gone("it stalled") from exc
            except OSError as exc:
                raise Gone(str(exc)) from exc
            if not data:
                raise Gone("it closed")
            return data

    def _set_timeout(self, which: int, seconds: int) -> None:
        # Not settimeout(): that makes the socket non-blocking and costs a poll for every call.
        self.sock.setsockopt(socket.SOL_SOCKET, which, struct.pack("ll", seconds, 0))
