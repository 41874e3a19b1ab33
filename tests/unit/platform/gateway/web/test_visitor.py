"""What a visitor may not say on its way through."""

from __future__ import annotations

import pytest

from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.gateway.web import head, visitor

BOX = "sandbox-abcdefgh1234"
HOST = b"Host: 3000-sandbox-abcdefgh1234.sandboxes.localhost\r\n"
URLS = DevUrls.of("http://sandboxes.localhost:7780")


@pytest.mark.parametrize("name", [b"content-length", b"Content-Length", b"host"])
def test_the_length_of_a_request_is_no_matter_of_one_connection(name: bytes) -> None:
    said = (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nConnection: x, " + name + b"\r\n\r\n"
    )
    inward = visitor.inward(head.request(said), 3000, URLS, "127.0.0.1")
    again = head.request(inward)
    assert (again.length, again.host) == (5, "localhost:3000")


def test_that_it_is_chunked_neither() -> None:
    said = (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n"
        b"Connection: transfer-encoding\r\n\r\n"
    )
    assert head.request(visitor.inward(head.request(said), 3000, URLS, "-")).length is None


def test_nor_the_length_of_an_answer() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: content-length\r\n\r\n"
    outward = visitor.outward(head.answer(said, b"GET"), BOX, 3000, URLS, [])
    assert head.answer(outward, b"GET").length == 5


def test_a_key_is_taken_out_however_it_is_spaced() -> None:
    said = b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: Bearer\trt_live_abc\r\n\r\n"
    asked = head.request(said)
    assert visitor.shown(asked, URLS).key == "rt_live_abc"
    assert b"rt_live_abc" not in visitor.inward(asked, 3000, URLS, "-")


@pytest.mark.parametrize("value", [b"", b" ", b"Bearer", b"Bearer "])
def test_a_header_that_has_no_key_is_none(value: bytes) -> None:
    said = b"GET / HTTP/1.1\r\n" + HOST + b"Authorization:" + value + b"\r\n\r\n"
    assert visitor.shown(head.request(said), URLS) is visitor.NOTHING


@pytest.mark.parametrize(
    ("site", "counts"),
    [(b"same-origin", True), (b"same-site", False), (b"cross-site", False), (b"none", False)],
)
def test_a_form_of_a_page_that_tells_no_address_is_its_own(site: bytes, counts: bool) -> None:
    said = (
        b"POST / HTTP/1.1\r\n" + HOST + b"Cookie: __Host-runtools-dev=rt_link_a\r\nOrigin: null\r\n"
        b"Sec-Fetch-Site: " + site + b"\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    asked = head.request(said)
    assert bool(visitor.shown(asked, URLS).cookies) is counts


def test_who_says_no_more_than_no_origin_is_not() -> None:
    said = (
        b"POST / HTTP/1.1\r\n" + HOST + b"Cookie: __Host-runtools-dev=rt_link_a\r\nOrigin: null\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert visitor.shown(head.request(said), URLS) is visitor.NOTHING
