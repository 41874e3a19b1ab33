"""QMP, the VMM's control protocol: one connection per operation, because it serves one at a time.

What comes from a VMM is bounded and has a deadline: a guest may have taken it over.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_LINE_LIMIT = 1 << 20
_EVENTS_LIMIT = 10_000


class QmpRefused(Exception):
    """The VMM refused a command; the message is its own."""


class QmpLost(Exception):
    """The VMM ended, does not answer in time, or does not speak the protocol."""


class Qmp:
    """An open conversation with a VMM. Made by `talk`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked = 0

    async def do(self, command: str, *, within: float = 10.0, **arguments: Any) -> Any:
        """Have a command done and give back what it returns.

        Raises:
            QmpRefused: the VMM answered with an error.
            QmpLost: there was no answer.
        """
        self._asked += 1
        order: dict[str, Any] = {"execute": command, "id": self._asked}
        if arguments:
            order["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            async with asyncio.timeout(within):
                self._writer.write(json.dumps(order).encode() + b"\n")
                await self._writer.drain()
                answer = await self._answer()
        except TimeoutError as exc:
            raise QmpLost(f"no answer to {command} in {within:g} s") from exc
        except OSError as exc:
            raise QmpLost(f"the connection broke at {command}: {exc}") from exc
        if "error" in answer:
            error = answer["error"]
            said = error.get("desc") if isinstance(error, dict) else error
            raise QmpRefused(f"{command}: {str(said)[:2000]}")
        return answer.get("return")

    async def greeting(self) -> None:
        """Read the VMM's first words."""
        if "QMP" not in await self._message():
            raise QmpLost("it does not speak QMP")

    async def _answer(self) -> dict[str, Any]:
        for _ in range(_EVENTS_LIMIT):
            message = await self._message()
            # An answer to an earlier command is one that nobody waited for to the end.
            if message.get("id") == self._asked and ("return" in message or "error" in message):
                return message
        raise QmpLost("it sends events without an end")

    async def _message(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except ValueError as exc:
            raise QmpLost(f"it sent a line of more than {_LINE_LIMIT} bytes") from exc
        if not line.endswith(b"\n"):
            raise QmpLost("it closed the connection")
        try:
            message = json.loads(line)
        except ValueError as exc:
            raise QmpLost("it sent something that is no JSON") from exc
        if not isinstance(message, dict):
            raise QmpLost("it sent something that is no message")
        return message


@asynccontextmanager
async def talk(path: Path, *, within: float = 10.0) -> AsyncIterator[Qmp]:
    """A conversation with the VMM that listens at the path.

    Raises:
        QmpLost: nobody listens, or there was no greeting in time.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    writer = None
    try:
        try:
            async with asyncio.timeout(within):
                sock.setblocking(False)
                await _connect(sock, path)
                reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_LINE_LIMIT)
                qmp = Qmp(reader, writer)
                await qmp.greeting()
                await qmp.do("qmp_capabilities", within=within)
        except TimeoutError as exc:
            raise QmpLost(f"no greeting in {within:g} s") from exc
        except OSError as exc:
            raise QmpLost(f"nobody answers: {exc}") from exc
        yield qmp
    finally:
        if writer is None:
            sock.close()
        else:
            writer.close()


def listen(path: Path) -> socket.socket:
    """A socket on which a VMM is to be spoken to; what lay at the path is replaced."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
        sock.listen(1)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


async def _connect(sock: socket.socket, path: Path) -> None:
    # By way of the folder: a socket's path may have 107 bytes only, a home may lie deeper.
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise QmpLost(f"there is no {path.parent}") from exc
    try:
        await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
