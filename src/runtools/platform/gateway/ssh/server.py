"""The listening port: makes a connection of each socket, or tells it why not."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
from asyncssh.constants import DISC_TOO_MANY_CONNECTIONS, MSG_DISCONNECT
from asyncssh.packet import Byte, String, UInt32

from runtools.errors import Conflict
from runtools.platform.gateway.ssh.door import Door
from runtools.platform.gateway.ssh.house import LOOKING, House
from runtools.platform.gateway.ssh.upstream import CIPHERS, EXCHANGES
from runtools.platform.gateway.ssh.wires import KEEPALIVE_SECONDS, ClientWire
from runtools.platform.kit import rates

log = logging.getLogger(__name__)

SOFTWARE = "RunTools"
LOGIN_SECONDS = 60
KEEPALIVE_MOST = 4
# Who is not read is not asked either, and may be gone for all that: connections have this from the socket
# that they came by.
_TCP_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
MOST_FAREWELLS = 256  # that are under way at once; whoever comes then is dropped without one
_LEAVE_SECONDS = 3.0
# As OpenSSH since 8.8: no signatures with SHA-1.
_SIGNATURES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-256",
    "rsa-sha2-512",
)


@asynccontextmanager
async def serving(house: House, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the body runs; gives the port, which is another one where 0 was asked for."""
    logging.getLogger("asyncssh").setLevel(logging.WARNING)  # else it tells of every channel
    listening = _Listening(house)
    await asyncssh.listen(
        host,
        port,
        tunnel=listening,
        config=None,
        server_factory=lambda: Door(house),
        server_host_keys=list(house.keys.host),
        server_version=SOFTWARE,
        signature_algs=list(_SIGNATURES),
        kex_algs=EXCHANGES,
        encryption_algs=list(CIPHERS),
        compression_algs=["none"],
        gss_host=None,
        allow_scp=False,
        agent_forwarding=False,
        x11_forwarding=False,
        login_timeout=LOGIN_SECONDS,
        keepalive_interval=KEEPALIVE_SECONDS,
        keepalive_count_max=KEEPALIVE_MOST,
    )
    house.spawn(house.look_on(), LOOKING)
    try:
        yield listening.port
    finally:
        listening.close()
        house.close()
        await listening.empty()


class _Listening:
    """What asyncssh asks to listen, and gets its connections from."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._server: asyncio.Server | None = None
        self._wires: set[ClientWire] = set()
        self._refused: set[ClientWire] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # noqa: S101 - it does
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def create_server(
        self, factory: Callable[[str, int], Any], host: str, port: int
    ) -> asyncio.Server:
        """Listen.

        Raises:
            Conflict: somebody else listens there.
        """

        def made() -> ClientWire:
            wire = ClientWire(lambda wire: self._admit(wire, factory), lambda: self._left(wire))
            return wire

        try:
            self._server = await asyncio.get_running_loop().create_server(
                made, host, port, backlog=256
            )
        except OSError as exc:
            raise Conflict(
                f"the SSH gateway cannot listen on {host}:{port}: {exc.strerror}",
                hint="the settings ssh_host and ssh_port choose another place",
            ) from exc
        for sock in self._server.sockets:
            for level, option, value in _TCP_KEEPALIVE:
                sock.setsockopt(level, option, value)
        return self._server

    def _admit(self, wire: ClientWire, factory: Callable[[str, int], Any]) -> Any | None:
        """A connection for a socket; None: it was told that it gets none."""
        source = _source(wire)
        refusal = self._house.refusal(source)
        if refusal is None and not self._house.places.take(source):
            refusal = "too many connections from your address"
        elif refusal is None:
            gone = self._house.strangers.come(wire, source)
            if gone is not None:
                self._send_home(gone)
                self._wires.add(wire)
                return factory("", 0)
            self._house.places.leave(source)
            refusal = "too many from your address have not logged in yet; try again"
        self._refused.add(wire)
        if len(self._refused) <= MOST_FAREWELLS:
            wire.write(f"SSH-2.0-{SOFTWARE}\r\n".encode() + _farewell(refusal))
            wire.abort()
        else:
            wire.drop()
        return None

    def _send_home(self, gone: Iterable[ClientWire]) -> None:
        for wire in gone:
            if wire.connection is None:  # it is being told something already
                wire.drop()
            else:
                code, sentence = DISC_TOO_MANY_CONNECTIONS, "others wait to log in; try again"
                wire.connection.disconnect(code, sentence, "en")

    def _left(self, wire: ClientWire) -> None:
        self._refused.discard(wire)
        if wire in self._wires:
            self._wires.discard(wire)
            self._house.strangers.leave(wire)
            self._house.places.leave(_source(wire))

    def close(self) -> None:
        """Take no more."""
        assert self._server is not None  # noqa: S101 - it listens
        self._server.close()

    async def empty(self) -> None:
        """Wait until all have left; who has not logged in is not waited for."""
        for wire in list(self._wires):
            asyncio.get_running_loop().call_later(_LEAVE_SECONDS, wire.abort)
        for wires in (self._wires, self._refused, self._house.streams):
            while wires:
                await next(iter(wires)).over.wait()


def _source(wire: ClientWire) -> str:
    return rates.source(wire.source)


def _farewell(sentence: str) -> bytes:
    """A message in the form that it has before keys are exchanged."""
    payload = (
        Byte(MSG_DISCONNECT) + UInt32(DISC_TOO_MANY_CONNECTIONS) + String(sentence) + String("en")
    )
    padding = 4 + -(len(payload) + 9) % 8
    return UInt32(len(payload) + padding + 1) + Byte(padding) + payload + os.urandom(padding)
