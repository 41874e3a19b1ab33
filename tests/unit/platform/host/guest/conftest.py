"""A real agent for the client to speak to, and one that a test can have misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runtools
from runtools.guest import protocol
from runtools.guest.protocol import HEADER, JSON
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.guest.holding import Holding
from runtools.platform.host.guest.patience import Patience
from runtools.platform.host.guest.wire import parse

TOKEN = "the token"
SOURCE = Path(runtools.__file__).parent.parent
HURRIED = Patience(hello=0.5, op=1.0, long=2.0, grace=0.7, stall=0.5, quiet=0.5, away=0.7, held=0.5)


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


def connector(path: Path) -> Callable[[], Awaitable[socket.socket]]:
    async def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(path))
        except BaseException:
            sock.close()
            raise
        return sock

    return connect


class Agent:
    """The real one, as a process."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.state = folder / "state"
        self.socket = folder / "agent.sock"
        self.log = folder / "log"
        self.connects = 0
        for name in ("workspace", "root", "etc"):
            (self.root / name).mkdir(parents=True)
        self.state.mkdir()
        (self.state / "token").write_text(TOKEN)
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-S", "-m", "runtools.guest", "--root", str(self.root)),
                    *("--listen", f"unix:{self.socket}", "--state", str(self.state)),
                    *("--token-file", str(self.state / "token")),
                ],
                env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.socket.unlink(missing_ok=True)

    def client(
        self,
        token: str = TOKEN,
        patience: Patience | None = None,
        holding: Holding | None = None,
    ) -> GuestClient:
        connect = connector(self.socket)

        async def counted() -> socket.socket:
            self.connects += 1
            return await connect()

        return GuestClient(counted, token, patience=patience, holding=holding)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.socket)) == 0


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.kill()
    log = made.log.read_text()
    assert "Traceback" not in log, log


@pytest.fixture
async def guest(agent: Agent) -> AsyncIterator[GuestClient]:
    client = agent.client()
    yield client
    await client.close()


class Impostor:
    """Listens in an agent's place; what it does after the hello is a test's to say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hello: bytes | None = _frame(
            b'{"ok":{"version":1,"boot":"b","features":{"kill":"session"}}}'
        )
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self.act: Callable[[Impostor, asyncio.StreamWriter], Awaitable[None]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: list[GuestClient] = []

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._meet, str(self.path))

    def client(self, patience: Patience = HURRIED, holding: Holding | None = None) -> GuestClient:
        made = GuestClient(connector(self.path), TOKEN, patience=patience, holding=holding)
        self._clients.append(made)
        return made

    def answers(self, *pieces: bytes) -> None:
        """After each request, send exactly these bytes."""

        async def act(_: Impostor, writer: asyncio.StreamWriter) -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

        self.act = act

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._frame(reader)
                if self.hello is not None:
                    writer.write(self.hello)
                while True:
                    kind, payload = await self._frame(reader)
                    if kind == JSON:
                        self.requests.append(parse(payload))
                        if self.act is not None:
                            await self.act(self, writer)
        finally:
            writer.transport.abort()

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        length, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
        return kind, await reader.readexactly(length)

    async def stop(self) -> None:
        for client in self._clients:
            await client.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _frame(payload: bytes) -> bytes:
    return protocol.frame(JSON, payload)


@pytest.fixture
async def impostor(tmp_path: Path) -> AsyncIterator[Impostor]:
    made = Impostor(tmp_path / "impostor.sock")
    server = await made.serve()
    yield made
    server.close()
    await made.stop()
