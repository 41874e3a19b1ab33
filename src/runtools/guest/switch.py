"""Raw streams to ports of the machine: connecting, and one thread that moves the bytes of all of them.

Bytes go from socket to socket by a pipe of the thread's own (``splice``), none of them through Python,
save what the receiver did not take: then nothing more is read for it until it has. A direction that ends
is ended on the other side, and the other direction stays open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import threading
import traceback
from typing import Final

from runtools.guest import netinfo
from runtools.guest.problems import Problem, invalid

MAX_STREAMS: Final = 1000
_PIPE: Final = 256 << 10
_CONNECT_SECONDS: Final = 5.0
_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close without a farewell
_FAREWELL: Final = struct.pack("ii", 0, 0)
# A peer that was left behind by a pause, a fork or a rollback says nothing any more.
_KEEPALIVE: Final = (
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 20),
    (socket.TCP_KEEPCNT, 6),
)


class _Flow:
    """One direction of a stream."""

    __slots__ = ("ended", "held", "source", "target")

    def __init__(self, source: socket.socket, target: socket.socket, held: bytes = b"") -> None:
        self.source = source
        self.target = target
        self.held = held  # what the target had no room for
        self.ended = False  # nothing more comes out of the source


class _Stream:
    """Two sockets and the directions between them."""

    __slots__ = ("broken", "gone", "inward", "outward")

    def __init__(self, outer: socket.socket, inner: socket.socket, early: bytes) -> None:
        self.inward = _Flow(outer, inner, early)
        self.outward = _Flow(inner, outer)
        self.gone: socket.socket | None = None  # closed for good, with bytes that we still hold
        self.broken = False  # to be broken off

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """The outer and the inner one."""
        return self.inward.source, self.outward.source

    def flows(self, sock: socket.socket) -> tuple[_Flow, _Flow]:
        """The direction that leaves a socket, and the one that enters it."""
        if sock is self.inward.source:
            return self.inward, self.outward
        return self.outward, self.inward

    def is_over(self) -> bool:
        """Whether both directions have ended and all has arrived."""
        return all(flow.ended and not flow.held for flow in (self.inward, self.outward))

    def mask(self, sock: socket.socket) -> int | None:
        """What is waited for at a socket; None: nothing, not even its end, which is known."""
        leaving, entering = self.flows(sock)
        if sock is self.gone and leaving.held:
            return None
        reads = 0 if leaving.ended or leaving.held else select.EPOLLIN
        return reads | (select.EPOLLOUT if entering.held else 0)


class Switch:
    """All streams of one agent.

    Args:
        own_port: the agent's, which is no port for anybody.
    """

    def __init__(self, own_port: int) -> None:
        self._own_port = own_port
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None
        self._streams: dict[int, _Stream] = {}
        self._sockets: dict[int, socket.socket] = {}

    def connect(self, port: int) -> socket.socket:
        """A connection to what listens on a port, be it on the loopback of IPv4 or of IPv6 alone.

        Raises:
            Problem: nothing does, it takes nobody, or it is not to be reached.
        """
        if not 1 <= port <= 65535 or port == self._own_port:
            raise invalid(f"port {port} cannot be reached")
        if len(self._streams) >= 2 * MAX_STREAMS:
            raise Problem("unavailable", f"{MAX_STREAMS} streams are open to this machine")
        for family, address in _LOOPBACK:
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                continue  # a kernel without IPv6
            try:
                sock.settimeout(_CONNECT_SECONDS)
                sock.connect((address, port))
            except TimeoutError:
                sock.close()
                raise Problem(
                    "unavailable", f"what listens on port {port} takes no connection"
                ) from None
            except OSError:
                sock.close()
            else:
                return sock
        raise Problem(
            "port_closed", f"nothing listens on port {port}", details={"ports": self._listening()}
        )

    def take(self, outer: socket.socket, inner: socket.socket, early: bytes) -> None:
        """Move bytes between two sockets from now on, and close them at the end.

        ``early`` came from the outer one already.
        """
        for sock in (outer, inner):
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE:
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
                # Should we be killed, what was under way must not look as if it had come to its end.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        stream = _Stream(outer, inner, early)
        with self._lock:
            epoll = self._running()
            for sock in (outer, inner):
                self._streams[sock.fileno()] = stream
                self._sockets[sock.fileno()] = sock
                _wait(epoll, sock, stream.mask(sock))

    def drop(self) -> None:
        """Break every stream off: this machine is a copy, and they were another's."""
        with self._lock:
            for fd, stream in self._streams.items():
                stream.broken = True
                # The thread is told; the peers are not yet, who would take it for an end.
                with contextlib.suppress(OSError):  # it is gone already
                    self._sockets[fd].shutdown(socket.SHUT_RD)
                _wait(self._running(), self._sockets[fd], select.EPOLLIN)

    def _listening(self) -> list[int]:
        return [port for port in netinfo.listening() if port != self._own_port]

    def _running(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll()
            threading.Thread(target=self._run, args=(self._epoll,), daemon=True).start()
        return self._epoll

    def _run(self, epoll: select.epoll) -> None:
        pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, _PIPE)
        while True:
            told = epoll.poll()
            # In one hold: a number that one stream gives up may be another's at once.
            with self._lock:
                for fd, events in told:
                    if fd in self._streams:  # else its other half was the end of it, a moment ago
                        self._serve(epoll, self._streams[fd], self._sockets[fd], events, pipe)

    def _serve(
        self,
        epoll: select.epoll,
        stream: _Stream,
        sock: socket.socket,
        events: int,
        pipe: tuple[int, int],
    ) -> None:
        try:
            if stream.broken:
                raise OSError(errno.ECONNABORTED, "it is broken off")
            _step(stream, sock, events, pipe)
            if stream.is_over():
                self._close(epoll, stream, abort=False)
                return
            for each in stream.sockets():
                _wait(epoll, each, stream.mask(each))
        except OSError:
            self._close(epoll, stream, abort=True)
        except Exception:  # noqa: BLE001 - one stream must not end the others
            traceback.print_exc()
            self._close(epoll, stream, abort=True)
            _empty(pipe[0])

    def _close(self, epoll: select.epoll, stream: _Stream, *, abort: bool) -> None:
        for sock in stream.sockets():
            fd = sock.fileno()
            del self._streams[fd], self._sockets[fd]
            with contextlib.suppress(OSError):
                epoll.unregister(fd)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT if abort else _FAREWELL)
            sock.close()


def _step(stream: _Stream, sock: socket.socket, events: int, pipe: tuple[int, int]) -> None:
    """Move what can be moved by a socket that has something to tell.

    Raises:
        OSError: one of the two is gone.
    """
    leaving, entering = stream.flows(sock)
    if events & select.EPOLLOUT and entering.held:
        _flush(entering)
    if not events & ~select.EPOLLOUT:
        return
    if leaving.ended or events & select.EPOLLERR:
        raise OSError(errno.ECONNRESET, "the peer is gone altogether")
    if leaving.held:
        stream.gone = sock  # it will be read to its end once there is room
    else:
        _move(leaving, pipe)


def _wait(epoll: select.epoll, sock: socket.socket, mask: int | None) -> None:
    """Be told of what is waited for at a socket; of nothing at all where that is None."""
    try:
        if mask is None:
            epoll.unregister(sock.fileno())
        else:
            epoll.modify(sock.fileno(), mask)
    except FileNotFoundError:
        if mask is not None:
            epoll.register(sock.fileno(), mask)


def _move(flow: _Flow, pipe: tuple[int, int]) -> None:
    """Move what is there from source to target; what finds no room is held."""
    out, into = pipe
    try:
        count = os.splice(flow.source.fileno(), into, _PIPE)
    except BlockingIOError:
        return
    if not count:
        flow.ended = True
        flow.target.shutdown(socket.SHUT_WR)
        return
    while count:
        try:
            count -= os.splice(out, flow.target.fileno(), count)
        except BlockingIOError:
            flow.held = _read(out, count)
            return
        except OSError:
            _empty(out)
            raise


def _flush(flow: _Flow) -> None:
    try:
        flow.held = flow.held[flow.target.send(flow.held) :]
    except BlockingIOError:
        return


def _read(out: int, count: int) -> bytes:
    parts = []
    while count:
        parts.append(os.read(out, count))
        count -= len(parts[-1])
    return b"".join(parts)


def _empty(out: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(out, _PIPE):
            pass
