"""The agent's service: connections, hello, and one operation after another on each.

Threads are made ahead: there is always one more waiting in accept() than is serving, so that neither a
connection nor a request pays for a new thread. A thread serves one connection until it closes.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import threading
import traceback
from typing import Any, Final

from runtools.guest import protocol
from runtools.guest.conn import Conn, Gone, failed, ok
from runtools.guest.ops import Ops
from runtools.guest.problems import Problem

MAX_CONNECTIONS: Final = 256
_STACK: Final = 1 << 20


class Token:
    """What callers must know. It lies in a file, so that a restarted agent asks for the same."""

    def __init__(self, file: str) -> None:
        self._file = file
        with open(file) as text:
            self._value = text.read().strip()
        if not self._value:
            raise ValueError(f"{file} is empty")

    def matches(self, offered: object) -> bool:
        """Whether a caller knows it; takes the same time however much of it is right."""
        return isinstance(offered, str) and hmac.compare_digest(
            offered.encode(errors="replace"), self._value.encode()
        )

    def replace(self, value: str) -> None:
        """From now on another one is asked for."""
        fresh = f"{self._file}.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
        os.rename(fresh, self._file)
        self._value = value


class Server:
    """Accepts connections and serves them."""

    def __init__(self, listener: socket.socket, token: Token, ops: Ops) -> None:
        self._listener = listener
        self._token = token
        self._ops = ops
        self._lock = threading.Lock()
        self._conns: set[Conn] = set()
        self._waiting = 0
        self._threads = 0
        self._boot = secrets.token_hex(8)  # another one after each start of the agent
        # A machine's own processes have no business here, and may call from any address that is theirs.
        self._host_only = (
            listener.family == socket.AF_INET and listener.getsockname()[0] == "0.0.0.0"
        )
        ops.on_quiesce = self._drop_idle
        ops.on_new_token = self._drop_others

    def run(self) -> None:
        """Serve for ever."""
        threading.stack_size(_STACK)
        self._ensure_waiting()
        self._ensure_waiting()
        threading.Event().wait()

    def _ensure_waiting(self) -> None:
        with self._lock:
            if self._threads >= MAX_CONNECTIONS:
                return
            self._threads += 1
            self._waiting += 1
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                continue  # the caller went before it was its turn, or files ran out for a moment
            with self._lock:
                self._waiting -= 1
                short = self._waiting == 0
            if short:
                self._ensure_waiting()
            try:
                if not self._host_only or peer[0] == protocol.HOST:
                    self._serve(sock)
            except OSError:
                pass  # it went at once
            finally:
                sock.close()
            with self._lock:
                self._waiting += 1

    def _serve(self, sock: socket.socket) -> None:
        conn = Conn(sock)
        with self._lock:
            self._conns.add(conn)
        try:
            with contextlib.suppress(Gone):
                if self._hello(conn):
                    while not conn.last:
                        self._one(conn)
        finally:
            with self._lock:
                self._conns.discard(conn)

    def _hello(self, conn: Conn) -> bool:
        offer = conn.hello()
        version = protocol.choose_version(offer.get("versions"))
        if version is None:
            problem = Problem(
                "version_mismatch",
                f"the agent speaks versions {list(protocol.SPOKEN)} of the guest protocol, "
                f"the host {offer.get('versions')}",
                hint="build the template anew, or upgrade the platform",
                details={"versions": list(protocol.SPOKEN)},
            )
        elif not self._token.matches(offer.get("token")):
            problem = Problem("unauthenticated", "the token is wrong")
        else:
            conn.send(ok(self._introduction(version)))
            return True
        conn.send(failed(problem))
        return False

    def _introduction(self, version: int) -> dict[str, Any]:
        return {
            "version": version,
            "boot": self._boot,
            "features": self._ops.features(),
        }

    def _one(self, conn: Conn) -> None:
        request, raw = conn.request()
        conn.busy = True
        try:
            self._ops.handle(conn, request, raw)
        except Problem as problem:
            conn.send(failed(problem))
        except Gone:
            raise
        except Exception as exc:  # noqa: BLE001 - one request must not end the agent
            traceback.print_exc()
            conn.send(failed(Problem("internal", f"{type(exc).__name__}: {exc}")))
        conn.drain_body()
        conn.busy = False

    def _drop_idle(self, mine: Conn) -> None:
        with self._lock:
            others = [c for c in self._conns if c is not mine and not c.busy]
        for conn in others:
            conn.abort()

    def _drop_others(self, mine: Conn) -> None:
        with self._lock:
            others = [c for c in self._conns if c is not mine]
        for conn in others:
            conn.abort()
