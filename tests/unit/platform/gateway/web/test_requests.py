"""What is said again is read as if it were said for the first time."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest

from runtools.platform.core.dev_urls import DevUrls
from runtools.platform.gateway.web.head import BadHead, RequestHead
from runtools.platform.gateway.web.house import House
from runtools.platform.gateway.web.requests import Requests
from runtools.testing.clock import ManualClock
from runtools.testing.fake_reach import FakeReach
from runtools.testing.gateway_world import BOX, KEY, LINK, OTHER, FakeAdmitting

SOURCE = "192.0.2.9"
FIELDS = (
    f"Host: 3000-{BOX}.sandboxes.localhost:1\r\nX-RunTools-Key: {KEY}\r\nX-Forwarded-For: 1.2.3.4\r\n"
    f"Accept: text/html\r\nCookie: a=b; __Host-runtools-dev={LINK}\r\nSec-Fetch-Site: same-origin\r\n"
)
SEED = int(os.environ.get("RT_TEST_SEED", random.randrange(2**32)))
BYTES = b" \t\r\n\0:/?#%*\x7f\x80\xffaGTPH01"
Read = tuple[RequestHead, bytes, object, bytes]


@pytest.fixture
async def house() -> House:
    urls = DevUrls.of("http://sandboxes.localhost:1")
    return House(urls, FakeAdmitting(), FakeReach({BOX: None}), ManualClock())


def said(first: str = "GET /", fields: str = FIELDS) -> bytes:
    return f"{first} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")


def read(requests: Requests, house: House, data: bytes) -> Read | str:
    """All that is known of a request by its head, or why it is none."""
    try:
        found = requests.read(data)
    except BadHead as exc:
        return f"{exc.status} {exc}"
    inward = b"" if found.wish is None else found.inward(house.urls)
    return replace(found.head), found.own, found.wish, inward


@pytest.mark.parametrize(
    "then",
    [
        said("GET /a/b?c=d&e=%20"),
        said("GET //other"),
        said("GET /#a"),
        said("GET /a#b"),
        said("GET /?runtools-link=" + LINK),
        said("GET /?a=b&runtools-link=" + LINK + "&c=d"),
        said("GET  /"),
        said("GET / "),
        said("GET"),
        said("GET a"),
        said("GET *"),
        said("OPTIONS *"),
        said("OPTIONS /"),
        said("CONNECT a:80"),
        said("CONNECT /"),
        said(f"GET http://3000-{OTHER}.sandboxes.localhost/"),
        said("GET /\t"),
        said("GET /\0"),
        said("GET /\x7f"),
        said("GET /\xe9"),
        said("GET /a\r\nX: /"),
        said("GET /a\nX:"),
        said("get /"),
        said("POST /"),
        said("HEAD /a"),
        b"\r\n" + said("GET /a"),
        said("GET /a", FIELDS.replace(BOX, OTHER)),
        said("GET /a", FIELDS + "X: y\r\n"),
        said("GET /a", FIELDS + "Content-Length: 5\r\n"),
        said("GET /a").replace(b"1.1", b"1.0", 1),
        said("GET /a").replace(b"1.1", b"2.0", 1),
    ],
)
async def test_what_comes_behind_another_is_read_as_if_it_came_alone(
    house: House, then: bytes
) -> None:
    for before in (said(), said("GET /before?x=y"), said("POST /before"), b"\r\n" + said()):
        requests = Requests(house, SOURCE)
        assert not isinstance(read(requests, house, before), str)
        for data in (then, before, then, then):
            assert read(requests, house, data) == read(Requests(house, SOURCE), house, data)


async def test_so_is_whatever_it_is_made_into(house: House) -> None:
    """A byte more, less or another, anywhere: mostly in the first line, where something is compared."""
    chance = random.Random(SEED)
    base = said("GET /path?query=1")
    first = base.index(b"\r\n") + 8
    requests, kinds = Requests(house, SOURCE), set()
    for _ in range(3000):
        read(requests, house, base)
        data = bytearray(base)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(first if chance.random() < 0.8 else len(data))
            byte = chance.choice(BYTES)
            data[at : at + chance.randint(0, 1)] = bytes([byte] * chance.randint(0, 1))
        found = read(requests, house, bytes(data))
        assert found == read(Requests(house, SOURCE), house, bytes(data)), (SEED, bytes(data))
        kinds.add(isinstance(found, str))
    assert kinds == {True, False}, SEED


async def test_the_same_but_for_its_path_is_not_taken_apart_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(house, SOURCE)
    requests.read(said("GET /one"))
    monkeypatch.setattr("runtools.platform.gateway.web.head.request", lambda _: pytest.fail("was"))
    found = requests.read(said("GET /two"))
    assert (found.own, found.head.target) == (b"/two", b"/two")
    assert found.inward(house.urls).startswith(b"GET /two HTTP/1.1\r\nHost: localhost:3000\r\n")


async def test_little_is_kept_and_nothing_with_a_link_in_its_address(house: House) -> None:
    for data in (
        said("GET /", FIELDS + "X: " + "y" * 5000 + "\r\n"),
        said("GET /?runtools-link=" + LINK),
    ):
        requests = Requests(house, SOURCE)
        requests.read(said())
        requests.read(data)
        assert requests._last is None
        assert not requests._tail
