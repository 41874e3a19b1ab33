"""Where a body ends, however it is cut into pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtools.platform.gateway.web import framing
from runtools.platform.gateway.web.framing import BadBody, Chunked


def taken(body: framing.Framing, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What of the pieces goes on, and what is left."""
    found, left = b"", b""
    for piece in pieces:
        if body.done:
            left += piece
            continue
        goes, rest = body.take(piece)
        found += goes
        assert body.done or not rest
        left += rest
    return found, left


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(at) if a < b]


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    trailers=st.lists(st.sampled_from([b"X-A: 1\r\n", b"Digest: x y\r\n"]), max_size=3),
    rest=st.binary(max_size=40),
    places=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_chunks_end_where_they_end(
    chunks: list[bytes], trailers: list[bytes], rest: bytes, places: list[int]
) -> None:
    body = b"".join(b"%x;a=b\r\n%b\r\n" % (len(one), one) for one in chunks)
    body += b"0\r\n" + b"".join(trailers) + b"\r\n"
    for framed, goes in ((Chunked(), body), (Chunked(unpacks=True), b"".join(chunks))):
        assert taken(framed, cut(body + rest, places)) == (goes, rest)
        assert framed.done


@given(
    length=st.integers(0, 500), rest=st.binary(max_size=40), places=st.lists(st.integers(0, 999))
)
def test_so_many_bytes(length: int, rest: bytes, places: list[int]) -> None:
    body = framing.of(length)
    assert taken(body, cut(b"x" * length + rest, places)) == (b"x" * length, rest)
    assert body.done


@given(places=st.lists(st.integers(0, 999), max_size=8))
def test_trailers_say_nothing_that_a_head_would_not(places: list[int]) -> None:
    body = b"2\r\nhi\r\n0\r\n"
    kept = b"Server-Timing: a;dur=1\r\nX-Sum: 1\r\n"
    dropped = (
        b"Cookie: __Host-runtools-dev=rt_link_a\r\nset-cookie: a=1; Domain=b\r\nTransfer-Encoding: x\r\n"
        b"X-RunTools-Key: rt_live_a\r\nX-Forwarded-For: 6.6.6.6\r\nHOST: a\r\nContent-Length: 1\r\n"
        b"X_Forwarded_For: 6.6.6.6\r\nProxy: http://a\r\nX-Accel-Redirect: /a\r\nX-Sendfile: /a\r\n"
        b"X_Real_IP: 6.6.6.6\r\nx_runtools-key: a\r\nClear-Site-Data: *\r\nX-Runtools-Refused: 1\r\n"
    )
    framed = Chunked()
    said = cut(body + dropped + kept + dropped + b"\r\nGET /", places)
    assert taken(framed, said) == (body + kept + b"\r\n", b"GET /")


def test_until_the_connection_ends() -> None:
    body = framing.of(-1)
    assert body.take(b"anything") == (b"anything", b"")
    assert not body.done


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"1 1\r\n",
        b"0x1\r\n",
        b"1\n",
        b"1;\0\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"f" * 16 + b"\r\n",
        b"1" * 5000,
        b"0\r\nno trailer\r\n",
        b"0\r\nX: \0\r\n",
        b"0\r\n" + b"X: y\r\n" * 65,
    ],
)
def test_what_is_no_chunk(data: bytes) -> None:
    for unpacks in (False, True):
        with pytest.raises(BadBody):
            Chunked(unpacks=unpacks).take(data)
