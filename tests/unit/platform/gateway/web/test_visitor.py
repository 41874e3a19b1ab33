"""What a visitor may not say on its way through."""

from __future__ import annotations

import pytest

from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.gateway.web import head, visitor

BOX = "sandbox-abcdefgh1234"
HOST = b"Host: 3000-sandbox-abcdefgh1234.sandboxes.localhost\r\n"
URLS = DevUrls.of("http://sandboxes.localhost:7780")


def inward(asked: head.RequestHead) -> bytes:
    """What the server inside reads."""
    behind = visitor.behind_target(asked, 3000, URLS, "127.0.0.1")
    return b"%b %b %b" % (asked.method, asked.target, behind)


@pytest.mark.parametrize("name", [b"content-length", b"Content-Length", b"host"])
def test_the_length_of_a_request_is_no_matter_of_one_connection(name: bytes) -> None:
    said = (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nConnection: x, " + name + b"\r\n\r\n"
    )
    again = head.request(inward(head.request(said)))
    assert (again.length, again.host) == (5, "localhost:3000")


def test_that_it_is_chunked_neither() -> None:
    said = (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n"
        b"Connection: transfer-encoding\r\n\r\n"
    )
    assert head.request(inward(head.request(said))).length is None


def test_nor_the_length_of_an_answer() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: content-length\r\n\r\n"
    outward = visitor.outward(head.answer(said, b"GET"), BOX, 3000, URLS, [])
    assert head.answer(outward, b"GET").length == 5


@pytest.mark.parametrize(
    "name", [b"X-Forwarded-For", b"X_Forwarded-for", b"x_forwarded_proto", b"X_Real_IP", b"Proxy"]
)
def test_who_asks_is_told_by_us_alone(name: bytes) -> None:
    """However it is spelt: to CGI and WSGI both kinds of line are one."""
    read = told(b"GET", name + b": http://192.0.2.7", b"api_key: y")
    assert b"http://192.0.2.7" not in [value for _, value, _ in read.fields]
    assert read.all(b"x-forwarded-for") == [b"127.0.0.1"]
    assert read.all(b"api_key") == [b"y"]


@pytest.mark.parametrize("name", [b"X-Accel-Redirect", b"x-sendfile", b"Clear-Site-Data"])
def test_an_answer_tells_a_proxy_before_us_nothing_to_do(name: bytes) -> None:
    """nginx would answer with what is at that address of its own."""
    said = b"HTTP/1.1 200 OK\r\n" + name + b": /secret\r\nX-Accel-Buffering: no\r\n\r\n"
    outward = visitor.outward(head.answer(said, b"GET"), BOX, 3000, URLS, [])
    assert outward == b"HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\n\r\n"


def test_a_key_is_taken_out_however_it_is_spaced() -> None:
    said = b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: Bearer\trt_live_abc\r\n\r\n"
    asked = head.request(said)
    assert visitor.shown(asked, URLS).key == "rt_live_abc"
    assert b"rt_live_abc" not in inward(asked)


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


OWN = b"http://3000-sandbox-abcdefgh1234.sandboxes.localhost"
FOREIGN = b"http://3000-sandbox-zzzzzzzz1234.sandboxes.localhost"
UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
HERE = b"http://localhost:3000"


def told(first: bytes, *fields: bytes) -> head.RequestHead:
    """What the server inside reads."""
    said = first + b" / HTTP/1.1\r\n" + HOST + b"".join(one + b"\r\n" for one in fields) + b"\r\n"
    return head.request(inward(head.request(said)))


@pytest.mark.parametrize("upgrade", [b"", UPGRADE])
@pytest.mark.parametrize(
    "origin",
    [FOREIGN, b"https" + OWN[4:], OWN + b".example.com", b"null", b"http://localhost:3000.a"],
)
def test_whose_page_another_one_is_the_server_is_told(origin: bytes, upgrade: bytes) -> None:
    fields = [b"Origin: " + origin, b"Referer: " + origin + b"/a", upgrade[:-2] or b"X: y"]
    read = told(b"GET", *fields)
    assert read.all(b"origin") == [origin]
    assert read.all(b"referer") == [origin + b"/a"]


def test_a_websocket_of_its_own_page_is_one_of_its_machine() -> None:
    read = told(b"GET", b"origin: " + OWN, b"Referer: " + OWN + b"/a?b=c", UPGRADE[:-2])
    assert read.all(b"origin") == [HERE]
    assert read.all(b"referer") == [HERE + b"/a?b=c"]
    assert read.host == "localhost:3000"
    assert read.all(b"x-forwarded-host") == [OWN[7:]]


@pytest.mark.parametrize(
    "kind",
    [
        b"Content-Type: application/x-www-form-urlencoded",
        b"Content-Type: Multipart/Form-Data; boundary=x",
        b"Content-Type: text/plain;charset=UTF-8",
        b"X: none",
    ],
)
def test_servers_that_ask_whose_a_form_is_are_told_one_story(kind: bytes) -> None:
    """Django and SvelteKit compare its origin with Host, Next.js and Rails with what was forwarded."""
    read = told(b"POST", b"Origin: " + OWN, b"Content-Length: 0", kind)
    assert read.all(b"origin") == [HERE]
    assert read.host == "localhost:3000"
    assert read.all(b"x-forwarded-host") == [b"localhost:3000"]
    assert read.all(b"x-forwarded-proto") == [b"http"]


def test_who_builds_addresses_for_a_program_knows_the_one_outside() -> None:
    for fields in (
        [b"Origin: " + OWN, b"Content-Type: application/json"],
        [b"Origin: " + FOREIGN, b"Content-Type: text/plain"],
        [b"Content-Type: text/plain"],
    ):
        read = told(b"POST", b"Content-Length: 0", *fields)
        assert read.all(b"x-forwarded-host") == [OWN[7:]]


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
def test_what_is_no_form_keeps_its_origin(method: bytes) -> None:
    """Rails compares it with what was forwarded, whatever the method."""
    page = OWN + b"/a"
    fields = [b"Origin: " + OWN, b"Referer: " + page, b"Content-Type: application/json"]
    read = told(method, b"Content-Length: 0", *fields)
    assert read.all(b"origin") == [OWN]
    assert read.all(b"referer") == [page]
    assert read.all(b"x-forwarded-host") == [OWN[7:]]
