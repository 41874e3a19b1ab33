"""An answer without a length is told from a part of it, whoever breaks off in it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.unit.platform.gateway.web.played import ANSWER, World

from runtools.platform.gateway.web import pace
from runtools.testing.gateway_world import BOX, KEY

PART = b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhalf"
CHUNK = b"4\r\nhalf\r\n"
LAST = b"0\r\n\r\n"


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Of a server's connection, which is there as long as both are."""
    ours, its = socket.socketpair()
    with ours, its:
        yield ours, its


Ends = tuple[socket.socket, socket.socket]


async def test_it_comes_in_chunks_and_the_connection_is_used_again(
    world: World, ends: Ends
) -> None:
    visit, front = world.visit()
    back = await world.ask(visit, "GET /")
    back.sock = ends[0]
    back.protocol.data_received(PART)
    said, _, body = front.sent.partition(b"\r\n\r\n")
    assert said == b"HTTP/1.1 200 OK\r\nServer: old\r\nTransfer-Encoding: chunked"
    assert body == CHUNK
    back.protocol.data_received(b"x" * 300)
    assert front.sent.endswith(b"\r\n12c\r\n" + b"x" * 300 + b"\r\n")
    back.protocol.eof_received()
    assert front.sent.endswith(b"x\r\n" + LAST)
    assert back.is_gone
    assert not front.is_gone
    again = await world.ask(visit, "GET /")
    again.protocol.data_received(ANSWER)
    assert front.sent.endswith(ANSWER[-8:])  # and no chunk


async def test_one_without_a_body_is_one_chunk_that_ends_it(world: World, ends: Ends) -> None:
    visit, front = world.visit()
    back = await world.ask(visit, "GET /")
    back.sock = ends[0]
    back.protocol.data_received(PART.removesuffix(b"half"))
    back.protocol.eof_received()
    assert front.sent.endswith(b"chunked\r\n\r\n" + LAST)


@pytest.mark.parametrize("first", ["HEAD /", "GET /"])
@pytest.mark.parametrize("status", [b"204 None", b"304 Same"])
async def test_what_has_no_body_has_no_chunks(world: World, first: str, status: bytes) -> None:
    status = b"200 OK" if first == "HEAD /" else status
    visit, front = world.visit()
    back = await world.ask(visit, first)
    back.protocol.data_received(b"HTTP/1.1 %b\r\nX: y\r\n\r\n" % status)
    assert front.sent == b"HTTP/1.1 %b\r\nX: y\r\n\r\n" % status
    assert not front.is_gone


async def test_one_that_is_broken_off_has_no_last_chunk(world: World) -> None:
    visit, front = world.visit()
    back = await world.ask(visit, "GET /")
    back.protocol.data_received(PART)
    back.protocol.connection_lost(None)
    assert front.sent.endswith(CHUNK)
    assert front.is_aborted


async def test_who_knows_no_chunks_is_told_by_the_connection(world: World, ends: Ends) -> None:
    visit, front = world.visit()
    mine, other = socket.socketpair()
    with mine, other:
        front.sock = mine
        host = f"Host: 3000-{BOX}.sandboxes.localhost:1\r\nX-RunTools-Key: {KEY}\r\n"
        visit.data_received(f"GET / HTTP/1.0\r\n{host}Connection: keep-alive\r\n\r\n".encode())
        assert visit._task is not None
        await visit._task
        back = world.servers.wires[-1]
        back.sock = ends[0]
        back.protocol.data_received(PART)
        assert front.sent.endswith(b"\r\nConnection: close\r\n\r\nhalf")
        assert linger(mine) == (1, 0)  # and if the gateway is killed now, that is a reset
        back.protocol.eof_received()
        assert front.sent.endswith(b"half")
        assert linger(mine)[0] == 0
        assert front.is_gone


def linger(sock: socket.socket) -> tuple[int, int]:
    said = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    return int.from_bytes(said[:4], "little"), int.from_bytes(said[4:], "little")


async def test_chunks_in_an_answer_of_the_old_version_are_none(world: World) -> None:
    """Some would read them as chunks and others as what they hold."""
    visit, front = world.visit()
    back = await world.ask(visit, "GET /")
    back.protocol.data_received(
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + LAST
    )
    assert front.sent.startswith(b"HTTP/1.1 502 ")
    assert back.is_aborted


async def test_chunks_go_to_nobody_who_does_not_know_them(world: World) -> None:
    visit, front = world.visit()
    host = f"Host: 3000-{BOX}.sandboxes.localhost:1\r\nX-RunTools-Key: {KEY}\r\n"
    visit.data_received(f"GET / HTTP/1.0\r\n{host}\r\n".encode())
    assert visit._task is not None
    await visit._task
    back = world.servers.wires[-1]
    back.protocol.data_received(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + LAST
    )
    assert front.sent.startswith(b"HTTP/1.1 502 ")
    assert b"half" not in front.sent
    assert back.is_aborted


async def test_what_packs_it_counts_as_given(world: World, ends: Ends) -> None:
    """Else a visitor who takes nothing would seem to move by each chunk."""
    visit, front = world.visit()
    back = await world.ask(visit, "GET /")
    back.sock = ends[0]
    back.protocol.data_received(PART)
    begun = len(front.sent)

    def piles_up(data: bytes) -> None:
        front.left += len(data)

    front.on_write = piles_up
    back.protocol.data_received(b"x")
    visit.look(visit.moved)
    for after in (20, 40, 2 + pace.STALL_SECONDS):
        back.protocol.data_received(b"x")
        visit.look(visit.moved + after)
    assert front.left == len(front.sent) - begun
    assert front.is_aborted
