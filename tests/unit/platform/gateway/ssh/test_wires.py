"""Who is read, and who is not for now."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from runtools.platform.gateway.ssh import wires
from runtools.platform.gateway.ssh.wires import ClientWire, SandboxWire
from runtools.testing.api_world import holds


class Socket(asyncio.Transport):
    """A socket that takes as much as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self.is_read = True
        self.is_gone = False
        self.sent = b""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the operating system: who is gone has no address any more."""
        return ("192.0.2.7", 1) if name == "peername" and not self.is_gone else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """None: the test says when."""

    def get_write_buffer_size(self) -> int:
        return self.waits

    def is_closing(self) -> bool:
        return self.is_gone

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class Connection:
    """What an SSH connection is to its wire."""

    def __init__(self) -> None:
        self.asks: list[int] = []
        self.pieces: list[int] = []

    def set_keepalive(self, interval: int) -> None:
        self.asks.append(interval)

    def connection_made(self, _wire: object) -> None: ...

    def data_received(self, data: bytes) -> None:
        self.pieces.append(len(data))

    def connection_lost(self, _exc: Exception | None) -> None: ...


def pair() -> tuple[ClientWire, Socket, SandboxWire, Socket]:
    """A client's and a sandbox's wire with their sockets."""
    outer, inner = Socket(), Socket()
    client = ClientWire(lambda _: cast("Any", Connection()), lambda: None)
    client.connection_made(outer)
    sandbox = SandboxWire(Connection(), client, set())
    sandbox.connection_made(inner)
    return client, outer, sandbox, inner


def test_who_takes_nothing_holds_up_what_is_for_it() -> None:
    client, outer, sandbox, inner = pair()
    client.pause_writing()
    assert (outer.is_read, inner.is_read) == (True, False)
    client.resume_writing()
    sandbox.pause_writing()
    assert (outer.is_read, inner.is_read) == (False, True)
    sandbox.resume_writing()
    assert (outer.is_read, inner.is_read) == (True, True)


def test_one_reason_that_is_gone_is_not_the_other() -> None:
    client, _, _, inner = pair()
    client.pause_writing()
    client.block("keys")
    client.resume_writing()
    assert not inner.is_read
    client.unblock("keys")
    assert inner.is_read


def test_a_reason_from_before_the_sandbox_was_there_counts() -> None:
    client = ClientWire(lambda _: cast("Any", Connection()), lambda: None)
    client.connection_made(Socket())
    client.block("keys")
    inner = Socket()
    SandboxWire(Connection(), client, set()).connection_made(inner)
    assert not inner.is_read


async def test_what_is_read_at_once_has_its_turn_in_pieces() -> None:
    """While one is taken apart all others wait; and it waits like what has not been read."""
    client, outer, sandbox, _ = pair()
    came = [wires.PIECE, wires.PIECE, wires.PIECE, 1]
    client.data_received(b"x" * sum(came))
    assert (client.connection.pieces, outer.is_read) == (came[:1], False)
    sandbox.pause_writing()
    for _ in range(5):
        await asyncio.sleep(0)
    assert client.connection.pieces == came[:1]
    sandbox.resume_writing()
    assert not outer.is_read
    await holds(lambda: len(client.connection.pieces) == len(came))
    assert (client.connection.pieces, outer.is_read) == (came, True)


def test_who_is_gone_is_known_by_the_address_that_it_had() -> None:
    client, outer, _, _ = pair()
    outer.is_gone = True
    assert client.source == "192.0.2.7"


def test_where_both_exchange_keys_both_are_read() -> None:
    """What ends the exchange of the one is not to wait for the other's."""
    client, outer, sandbox, inner = pair()
    for first, second in ((client, sandbox), (sandbox, client)):
        first.block(wires.EXCHANGE)
        assert (outer.is_read, inner.is_read) == (first is client, first is sandbox)
        second.block(wires.EXCHANGE)
        assert (outer.is_read, inner.is_read) == (True, True)
        second.pause_writing()  # full, it holds the other up all the same
        assert (outer.is_read, inner.is_read) == (second is client, second is sandbox)
        second.resume_writing()
        assert (outer.is_read, inner.is_read) == (True, True)
        first.unblock(wires.EXCHANGE)
        assert (outer.is_read, inner.is_read) == (second is client, second is sandbox)
        second.unblock(wires.EXCHANGE)
        assert (outer.is_read, inner.is_read) == (True, True)


def test_who_asks_for_answers_and_takes_none_is_read_no_further() -> None:
    client, outer, _, inner = pair()
    client.pause_writing()
    outer.waits = wires.MOST
    client.data_received(b"x")
    assert outer.is_read  # what waits may be the sandbox's
    outer.waits = wires.MOST + 1
    client.data_received(b"x")
    assert (outer.is_read, inner.is_read) == (False, False)
    outer.waits = 0
    client.resume_writing()
    assert (outer.is_read, inner.is_read) == (True, True)


def test_who_is_not_read_for_the_sandboxes_sake_is_not_asked_whether_it_is_there() -> None:
    """Its answers would not be heard, and a long wait of the sandbox's would end it."""
    client, outer, sandbox, _ = pair()
    for _ in range(2):
        sandbox.pause_writing()
        sandbox.block("keys")
        sandbox.resume_writing()
        sandbox.unblock("keys")
    assert client.connection.asks == [0, wires.KEEPALIVE_SECONDS] * 2
    outer.waits = wires.MOST + 1  # one that takes nothing itself is asked on
    client.pause_writing()
    client.data_received(b"x")
    assert not outer.is_read
    assert len(client.connection.asks) == 4


def test_a_client_that_is_gone_holds_nothing_up() -> None:
    client, _, _, inner = pair()
    client.pause_writing()
    client.connection_lost(None)
    assert inner.is_read


async def test_others_have_their_turn_after_a_piece() -> None:
    """However much waits to be read of one."""
    pieces: list[int] = []

    class Measuring(Connection):
        def data_received(self, data: bytes) -> None:
            pieces.append(len(data))

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    sent = theirs.send(bytes(1_000_000))
    assert sent > wires.PIECE
    wire = SandboxWire(Measuring(), pair()[0], set())
    await asyncio.get_running_loop().create_unix_connection(lambda: wire, sock=ours)
    await holds(lambda: sum(pieces) == sent)
    assert max(pieces) == wires.PIECE
    theirs.close()
    await wire.over.wait()


def test_what_is_for_a_socket_that_is_gone_is_dropped() -> None:
    client, outer, _, _ = pair()
    outer.is_gone = True
    client.write(b"x")
    assert outer.sent == b""
    outer.is_gone = False
    client.write(b"x")
    assert outer.sent == b"x"
