"""Through the agent to a port of its machine: greeted and connected on a fresh connection, then bare bytes.

Not a byte beyond the agent's answers is read here: what follows them is the stream's own.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final

from runtools.errors import GuestMisbehaved, VersionMismatch
from runtools.guest import protocol
from runtools.guest.protocol import HEADER, JSON, BadFrame
from runtools.platform.host.guest import wire
from runtools.platform.host.guest.channel import Connect, Interrupted, Refused

_SINCE: Final = 2  # the version of the protocol that has `connect`
_MOST: Final = 64 << 10


async def through(connect: Connect, token: str, port: int) -> socket.socket:
    """A non-blocking socket whose other end is what listens on the port.

    Raises:
        PortClosed: nothing does.
        InvalidRequest: the port is the agent's own.
        Interrupted: nobody answers.
        VersionMismatch: the agent is too old for it.
        GuestMisbehaved: it does not speak the protocol.
    """
    try:
        sock = await connect()
    except (ConnectionError, TimeoutError, OSError) as exc:
        raise Interrupted(f"the agent inside cannot be reached: {exc}") from exc
    try:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await _agree(sock, token, port)
    except BaseException:
        sock.close()
        raise
    return sock


async def _agree(sock: socket.socket, token: str, port: int) -> None:
    hello = {"versions": list(protocol.SPOKEN), "token": token}
    wanted = {"do": "connect", "port": port}
    try:
        await asyncio.get_running_loop().sock_sendall(sock, _frame(hello) + _frame(wanted))
        said = await _answer(sock)
        if "error" in said:
            raise Refused(str(wire.problem(said)))
        if wire.answer(said, wire.Hello).version < _SINCE:
            raise VersionMismatch(
                "the agent inside is of a version without streams to ports",
                hint="build the template anew, and make the sandbox from it",
            )
        wire.answer(await _answer(sock), wire.Nothing)
    except OSError as exc:
        raise Interrupted(f"the agent inside broke off the connection: {exc}") from exc


def _frame(request: dict[str, Any]) -> bytes:
    return protocol.frame(JSON, json.dumps(request, separators=(",", ":")).encode())


async def _answer(sock: socket.socket) -> dict[str, Any]:
    try:
        kind, length = protocol.parse_header(await _exactly(sock, HEADER.size), json_limit=_MOST)
    except BadFrame as exc:
        raise GuestMisbehaved(f"the agent inside sent {exc}") from exc
    if kind != JSON:
        raise GuestMisbehaved(f"the agent inside sent a frame of kind {kind} for an answer")
    return wire.parse(await _exactly(sock, length))


async def _exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece:
            raise Interrupted("the agent inside broke off the connection")
        data += piece
    return data
