"""The DNS wire format, with whatever a guest or a nameserver may send."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtools.platform.host.net import wire


def query(name: str = "example.org", ident: int = 7, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(word)]) + word.encode() for word in name.split("."))
    return struct.pack(">HHHHHH", ident, flags, 1, 0, 0, 0) + labels + b"\0\0\x01\0\x01"


class TestIsQuery:
    def test_a_plain_one_is(self):
        assert wire.is_query(query())

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            bytes(12),
            query(flags=0x8100),
            query(flags=0x2800),
            query()[:-1],
            query()[:4] + b"\0\2" + query()[6:],
            query()[:12] + b"\xc0\x0c\0\1\0\1",
            query("a." * 126 + "abcdefgh"),
        ],
        ids=[
            *("nothing", "no question", "an answer", "an update", "cut"),
            *("two questions", "a compressed name", "an endless name"),
        ],
    )
    def test_others_are_not(self, message):
        assert not wire.is_query(message)

    @given(st.binary(max_size=600))
    def test_anything_is_told_apart_without_a_fall(self, message):
        wire.is_query(message)
        wire.answers(message, query())


class TestAnswers:
    def test_the_same_question_under_the_same_id(self):
        assert wire.answers(query(flags=0x8180), query())

    def test_letters_of_another_size_are_the_same_name(self):
        assert wire.answers(query("EXAMPLE.org", flags=0x8180), query())

    @pytest.mark.parametrize(
        "reply",
        [query(), query(ident=8, flags=0x8180), query("example.com", flags=0x8180), b"\0\7"],
        ids=["no answer", "another id", "another name", "cut"],
    )
    def test_nothing_else(self, reply):
        assert not wire.answers(reply, query())


def test_a_failure_answers_its_query():
    reply = wire.failure(query(), wire.REFUSED)
    assert wire.answers(reply, query())
    assert reply[3] & 0x0F == wire.REFUSED


def test_an_id_is_exchanged():
    assert wire.ident(wire.with_id(query(), 0xBEEF)) == 0xBEEF
    assert wire.with_id(query(), 0xBEEF)[2:] == query()[2:]
