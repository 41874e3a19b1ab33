"""An answer without a length is told from a part of it, whoever breaks off in it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.unit.platform.gateway.web.played import ANSWER, World

from runtools.platform.gateway.web import pace

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
        back = await world.ask(visit, "GET /", "Connection: keep-alive\r\n", version="1.0")
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


IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"


async def test_chunks_go_to_nobody_who_does_not_know_them(world: World) -> None:
    """What they hold does, and the connection's end is its own."""
    visit, front = world.visit()
    mine, other = socket.socketpair()
    with mine, other:
        front.sock = mine
        back = await world.ask(visit, "GET /", "Connection: keep-alive\r\n", version="1.0")
        back.protocol.data_received(IN_CHUNKS + b"4;x=y\r\nha")
        head = b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\n"
        assert front.sent == head + b"ha"
        assert linger(mine) == (1, 0)
        back.protocol.data_received(b"lf\r\n3\r\nand\r\n2")
        back.protocol.data_received(b"\r\nit\r\n0\r\nX-Sum: 9\r\n")
        assert not front.is_gone
        back.protocol.data_received(b"\r\n")
        assert front.sent == head + b"halfandit"
        assert linger(mine)[0] == 0
        assert front.is_gone
        assert not front.is_aborted
    assert not back.is_gone  # the next one may ask on it
    assert await world.ask(world.visit()[0], "GET /") is back


@pytest.mark.parametrize("then", [b"no chunk\r\n", b"4\r\nlonger\r\n", b"0\r\nno trailer\r\n", b""])
async def test_nor_is_a_part_of_what_they_hold_the_whole(world: World, then: bytes) -> None:
    """Whoever speaks HTTP/1.0 knows an end from a reset, and nothing else."""
    visit, front = world.visit()
    mine, other = socket.socketpair()
    with mine, other:
        front.sock = mine
        back = await world.ask(visit, "GET /", version="1.0")
        back.protocol.data_received(IN_CHUNKS + CHUNK)
        if then:
            back.protocol.data_received(then)
        else:
            back.protocol.eof_received()
        assert front.sent.partition(b"\r\n\r\n")[2].startswith(b"half")
        assert linger(mine) == (1, 0)
        assert front.is_aborted
        assert back.is_aborted


async def test_what_they_hold_waits_for_who_takes_nothing(world: World) -> None:
    visit, front = world.visit()
    back = await world.ask(visit, "GET /", version="1.0")
    back.protocol.data_received(IN_CHUNKS + CHUNK)
    front.protocol.pause_writing()
    assert back.is_paused
    front.protocol.resume_writing()
    assert not back.is_paused


@pytest.mark.parametrize("first", ["HEAD /", "GET /"])
async def test_no_head_tells_who_does_not_know_them_of_chunks(world: World, first: str) -> None:
    status = b"200 OK" if first == "HEAD /" else b"304 Same"
    visit, front = world.visit()
    back = await world.ask(visit, first, "Connection: keep-alive\r\n", version="1.0")
    back.protocol.data_received(b"HTTP/1.1 %b\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
    assert front.sent == b"HTTP/1.1 %b\r\nConnection: keep-alive\r\n\r\n" % status
    assert not front.is_gone


async def test_the_old_version_knows_no_answers_before_the_answer(world: World) -> None:
    visit, front = world.visit()
    back = await world.ask(visit, "GET /", version="1.0")
    back.protocol.data_received(b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + ANSWER)
    assert front.sent.startswith(b"HTTP/1.1 200 ")


async def test_nor_another_protocol(world: World) -> None:
    visit, front = world.visit()
    more = "Connection: upgrade\r\nUpgrade: x\r\n"
    back = await world.ask(visit, "GET /", more, version="1.0")
    assert back.sent.startswith(b"GET / HTTP/1.1\r\n")  # and its server speaks ours
    assert b"pgrade" not in back.sent
    back.protocol.data_received(b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    assert front.sent.startswith(b"HTTP/1.1 502 ")


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
