"""Heads are read in one way or not at all (`flow/gateway/test_hostile` has the whole list)."""

from __future__ import annotations

import pytest

from runtools.platform.gateway.web.head import BadHead, answer, request, write

HOST = b"Host: 3000-sandbox-abcdefgh1234.sandboxes.localhost\r\n"


def test_a_head_written_anew_is_read_as_the_same() -> None:
    head = request(b"PUT /a?b HTTP/1.1\r\n" + HOST + b"X:  spaced \r\nContent-Length: 7\r\n\r\n")
    assert (head.method, head.target, head.length, head.keeps_alive) == (b"PUT", b"/a?b", 7, True)
    assert head.one(b"x") == b"spaced"
    again = request(write(b"PUT /a?b HTTP/1.1", [pair[:2] for pair in head.fields]))
    assert again == head


def test_it_knows_upgrades_and_ends() -> None:
    head = request(
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: x, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert head.upgrades
    assert not request(b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\n\r\n").upgrades
    assert not request(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n").keeps_alive
    assert not request(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n").keeps_alive


@pytest.mark.parametrize(
    ("said", "method", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 5),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", 0),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", None),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"GET", -1),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"GET", -1),
    ],
)
def test_how_long_an_answer_is(said: bytes, method: bytes, length: int | None) -> None:
    assert answer(said, method).length == length


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_what_is_no_answer(said: bytes) -> None:
    with pytest.raises(BadHead):
        answer(said, b"GET")


def test_a_half_is_no_head() -> None:
    with pytest.raises(BadHead):
        request(b"GET / HTTP/1.1\r\n" + HOST)
