from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtools.errors import VersionMismatch
from runtools.sdk.sse import MAX_EVENT_BYTES, Event, Parser

STREAM = (
    b": open\n\n"
    b'id: 1\nevent: line\ndata: {"a":1}\n\n'
    b": ping\n\n"
    b"data: two\r\ndata: lines\r\n\r\n"
    b"id: 7\nevent: end\ndata:{}\n\n"
)
EVENTS = [
    Event("line", '{"a":1}', "1"),
    Event("message", "two\nlines", "1"),
    Event("end", "{}", "7"),
]


def read(*chunks: bytes) -> list[Event]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_events_come_whole() -> None:
    assert read(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_where_the_stream_is_cut_does_not_matter(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in pairwise(places)]
    assert read(*chunks) == EVENTS


def test_an_event_that_did_not_end_is_none() -> None:
    assert read(b"data: half\n") == []


def test_a_line_without_end_is_not_held() -> None:
    parser = Parser()
    with pytest.raises(VersionMismatch, match="exceeds"):
        list(parser.feed(b"x" * (MAX_EVENT_BYTES + 1)))


def test_nor_are_lines_without_end() -> None:
    lines = (b"data: " + b"x" * 65_530 + b"\n") * 16
    with pytest.raises(VersionMismatch, match="exceeds"):
        read(*[lines] * 20)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(VersionMismatch, match="UTF-8"):
        read(b"data: \xff\n\n")
