"""The first bytes of connections: whole, in pieces, and malformed."""

from __future__ import annotations

import ssl
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtools.platform.host.net.hello import (
    MAX_BYTES,
    Encrypted,
    Hello,
    Unreadable,
    asks_again,
    read,
    record,
)


def real_hello(name: str | None) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same handshake message in records of so many bytes."""
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece for piece in pieces)


def hello(extensions: bytes) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


def sni(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + struct.pack(">H", len(name)) + name for name in names)
    body = struct.pack(">H", len(entries)) + entries
    return struct.pack(">HH", 0, len(body)) + body


def name_of(data: bytes) -> str | None:
    found = read(data)
    assert found is not None
    return found.name


class TestTls:
    def test_the_name_of_a_real_hello(self):
        data = real_hello("www.Example.org")
        assert read(data) == Hello("www.example.org", data, b"")

    def test_one_without_a_name(self):
        assert name_of(real_hello(None)) is None

    def test_what_follows_is_sent_on(self):
        data, more = real_hello("example.org"), b"\x17\x03\x03\x00\x01x"
        assert read(data + more) == Hello("example.org", data, more)

    def test_nothing_stands_behind_it_in_its_record(self):
        """A second hello there would be read before anybody has asked for one."""
        message = real_hello("example.org")[5:] + real_hello("evil.net")[5:]
        data = b"\x16\x03\x01" + struct.pack(">H", len(message)) + message
        with pytest.raises(Unreadable, match="behind it in its record"):
            read(data)

    def test_every_beginning_asks_for_more(self):
        data = real_hello("example.org")
        assert all(read(data[:size]) is None for size in range(len(data)))

    @pytest.mark.parametrize("size", [30, 100, 250])
    def test_a_message_may_lie_in_several_records(self, size):
        data = in_records(real_hello("example.org"), size)
        assert name_of(data) == "example.org"
        assert all(read(data[:end]) is None for end in range(len(data) - 1))

    def test_its_head_may_lie_in_several_records(self):
        data = real_hello("example.org")
        assert (
            name_of(in_records(data[:8], 1) + in_records(data[:5] + data[8:], 400)) == "example.org"
        )

    @pytest.mark.parametrize("kind", [0xFE0D, 0xFE08, 0xFE0C, 0xFFCE])
    @pytest.mark.parametrize("before", [True, False])
    def test_one_that_can_hide_another_is_refused_by_its_outer_name(self, kind, before):
        ech = struct.pack(">HH", kind, 4) + b"\0\1\2\3"
        outer = sni(b"outer.example.org")
        with pytest.raises(Encrypted) as refused:
            read(hello(ech + outer if before else outer + ech))
        assert refused.value.name == "outer.example.org"

    def test_neighbours_of_its_number_hide_nothing(self):
        others = b"".join(struct.pack(">HH", kind, 0) for kind in (0xFE07, 0xFE0E, 0xFFCD, 0x0A0A))
        assert name_of(hello(others + sni(b"a.org"))) == "a.org"

    @pytest.mark.parametrize(
        "data",
        [
            hello(sni(b"a.org", b"b.org")),
            hello(sni(b"a.org") + sni(b"b.org")),
            hello(sni(b"a.org", kind=1)),
            hello(sni(b"")),
            hello(sni(b"10.0.0.1")),
            hello(sni(b"a.org\0.evil.net")),
            hello(sni(b"a" * 300)),
            hello(b"\0\0\0\xff"),
            b"\x16\x03\x01\x00\x00",
            b"\x16\x02\x01\x00\x05hello",
            b"\x16\x03\x01\x50\x00" + bytes(10),
            b"\x16\x03\x01\x00\x04\x02\0\0\0",
            b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
            b"\x16\x03\x01\x00\x04\x01\0\0\x50" + b"\x17\x03\x03\x00\x01x",
        ],
    )
    def test_what_is_not_beyond_doubt_is_refused(self, data):
        with pytest.raises(Unreadable):
            read(data)

    def test_crumbs_are_given_up(self):
        with pytest.raises(Unreadable, match="more than 64 records"):
            read(in_records(real_hello("example.org"), 1))


def answer(random: bytes, kind: int = 2) -> bytes:
    body = b"\x03\x03" + random + b"\0" + b"\x13\x01" + b"\0"
    message = bytes([kind]) + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x03" + struct.pack(">H", len(message)) + message


RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
WARNING = b"\x15\x03\x03\x00\x02\x01\x70"


class TestAnswers:
    """Whether a server wants a second hello."""

    @pytest.mark.parametrize("before", [b"", WARNING, WARNING * 3, b"\x14\x03\x03\x00\x01\x01"])
    @pytest.mark.parametrize("size", [1, 7, 500])
    def test_a_wish_is_seen_however_it_comes(self, before, size):
        data = before + in_records(answer(RETRY), size)
        assert asks_again(data) is True
        assert {asks_again(data[:end]) for end in range(len(before) + 5 + 1)} == {None}

    @pytest.mark.parametrize(
        "data",
        [
            answer(bytes(32)),
            answer(RETRY, kind=4),
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x17\x03\x03\x00\x01x",
            WARNING * 1000,
        ],
    )
    def test_everything_else_is_none(self, data):
        assert asks_again(data) is False


class TestRecords:
    def test_the_first_whole_one(self):
        one = b"\x17\x03\x03\x00\x02xy"
        assert record(one + b"more") == one
        assert all(record(one[:size]) is None for size in range(len(one)))

    @pytest.mark.parametrize(
        "data", [b"GET / HTTP", b"\x16\x02\x00\x00\x01x", b"\x17\x03\x03\xff\xff"]
    )
    def test_what_is_none(self, data):
        with pytest.raises(Unreadable):
            record(data)


class TestHttp:
    def test_the_host_of_a_request(self):
        data = b"GET /x HTTP/1.1\r\nHost: Example.org:80\r\nAccept: */*\r\n\r\nbody"
        found = read(data)
        assert found is not None
        assert found.name == "example.org"
        assert found.first == (
            b"GET /x HTTP/1.1\r\nHost: Example.org:80\r\nAccept: */*\r\nConnection: close\r\n\r\nbody"
        )

    def test_no_second_request_can_follow(self):
        found = read(b"GET / HTTP/1.1\r\nConnection: keep-alive\r\nHost: a.org\r\n\r\n")
        assert found is not None
        assert b"keep-alive" not in found.first
        assert found.first.count(b"Connection: close\r\n") == 1

    def test_a_change_of_protocol_is_passed_on(self):
        found = read(
            b"GET / HTTP/1.1\r\nHost: a.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert found is not None
        assert b"Connection: close, Upgrade\r\n" in found.first

    def test_an_address_is_no_name(self):
        assert name_of(b"GET / HTTP/1.1\r\nHost: 203.0.113.7\r\n\r\n") is None
        assert name_of(b"GET / HTTP/1.0\r\n\r\n") is None

    def test_a_target_with_the_same_host(self):
        assert name_of(b"GET http://a.org/x HTTP/1.1\r\nHost: a.org\r\n\r\n") == "a.org"

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: a.org\r\nHost: b.org\r\n\r\n",
            b"GET http://b.org/ HTTP/1.1\r\nHost: a.org\r\n\r\n",
            b"GET http://b.org/ HTTP/1.1\r\n\r\n",
            b"CONNECT b.org:443 HTTP/1.1\r\nHost: a.org\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a.org\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: a.org\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.org\r\n b.org\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: y\nHost: b.org\r\nHost: a.org\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a.org\n\n\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.org/b.org\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.org@b.org\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a.org\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.org\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.org\r\nUpgrade: websocket, h2c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.org\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.org\r\nUpgrade: TLS/1.0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x00\x01\x02",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n",
            b"GET /" + b"a" * MAX_BYTES,
        ],
    )
    def test_what_is_not_beyond_doubt_is_refused(self, data):
        with pytest.raises(Unreadable):
            read(data)


@given(st.binary(max_size=200))
@example(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
def test_whatever_comes_is_a_hello_or_unreadable(data):
    for prefix in (b"", b"\x16\x03\x01", hello(sni(b"a.org"))[:60]):
        try:
            found = read(prefix + data)
        except (Unreadable, Encrypted):
            continue
        assert found is None or found.name is None or "." in found.name or found.name.isalnum()
