"""The envelope, errors, cursors, bodies and streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from runtools.errors import InvalidRequest, NotFound, RateLimited, TooLarge, Unauthenticated
from runtools.platform.kit import http
from runtools.platform.kit.outbound import networks
from runtools.sdk.shapes.sandboxes import SandboxCreate


def scope(**headers: str) -> dict[str, Any]:
    """A request's scope with headers."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": pairs}


def receiving(*chunks: bytes, ends: bool = True) -> Any:
    """A `receive` that hands out chunks; without an end, the caller goes away then."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        if left:
            more = bool(left[1:]) or not ends
            return {"type": "http.request", "body": left.pop(0), "more_body": more}
        return {"type": "http.disconnect"}

    return receive


def told(answer: Response) -> Any:
    """The JSON of a response."""
    return json.loads(bytes(answer.body))


class TestPeer:
    PROXIES = networks("10.0.0.0/8, fd00::/8")

    @pytest.mark.parametrize(
        ("client", "forwarded", "found"),
        [
            ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("10.0.0.1", "nonsense, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "x" * 4000, "10.0.0.1"),
            ("fd00::1", "2001:db8::7", "2001:db8::7"),
            ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
            ("203.0.113.1", "198.51.100.1", "203.0.113.1"),
        ],
    )
    def test_only_trusted_proxies_are_believed(
        self, client: str, forwarded: str, found: str
    ) -> None:
        asked = {**scope(x_forwarded_for=forwarded), "client": (client, 1)}
        assert http.peer(asked, self.PROXIES) == found
        assert http.peer(asked) == client

    def test_a_request_id_fits_the_audit_log(self) -> None:
        assert http.request_id(scope(x_request_id="a" * 64)) == "a" * 64
        assert http.request_id(scope(x_request_id="a" * 65)) != "a" * 65


class Sent:
    """Collects what an application sends."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.whole = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")
            self.whole = not message.get("more_body", False)


class TestReply:
    def test_the_envelope(self) -> None:
        body = told(http.reply("req_1", b'{"a":1}'))
        assert body == {"data": {"a": 1}, "meta": {"requestId": "req_1"}}

    def test_a_page(self) -> None:
        meta = told(http.reply("r", b"[]", paged=True, next_cursor="c"))["meta"]
        assert meta == {"requestId": "r", "hasMore": True, "nextCursor": "c"}

    def test_texts_that_are_no_unicode(self) -> None:
        assert json.loads(http.texts(["a\udcff", '"'])) == ["a?", '"']


class TestFailure:
    def test_it_says_all(self) -> None:
        answer = http.failure(NotFound("no x", hint="look", details={"a": 1}), "req_1")
        assert answer.status_code == 404
        assert told(answer)["error"] == {
            "code": "not_found",
            "message": "no x",
            "hint": "look",
            "details": {"a": 1},
            "requestId": "req_1",
        }

    def test_headers_that_some_need(self) -> None:
        limited = http.failure(RateLimited("slow", details={"retryAfterSeconds": 3}), "r")
        assert limited.headers["retry-after"] == "3"
        assert http.failure(Unauthenticated("who"), "r").headers["www-authenticate"] == "Bearer"
        assert http.failure(TooLarge("much"), "r").headers["connection"] == "close"


class TestReadBody:
    async def test_all_of_it(self) -> None:
        assert await http.read_body(scope(), receiving(b"ab", b"c")) == b"abc"

    async def test_one_byte_too_many(self) -> None:
        assert len(await http.read_body(scope(), receiving(b"x" * 10), limit=10)) == 10
        with pytest.raises(TooLarge):
            await http.read_body(scope(), receiving(b"x" * 6, b"x" * 5), limit=10)

    async def test_a_stated_length_is_believed_when_it_is_too_much(self) -> None:
        with pytest.raises(TooLarge):
            await http.read_body(scope(content_length="11"), receiving(b""), limit=10)

    async def test_a_caller_that_leaves(self) -> None:
        with pytest.raises(ClientDisconnect):
            await http.read_body(scope(), receiving(b"ab", ends=False))


class TestParse:
    def test_every_wrong_field_is_named(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            http.parse(SandboxCreate, b'{"vcpus":0,"x":1,"env":{"1":"a"}}')
        fields = {field["field"] for field in caught.value.details["fields"]}
        assert fields == {"vcpus", "x", "env.1.[key]"}
        assert "(and 2 more)" in caught.value.message

    def test_an_empty_body_is_an_empty_object(self) -> None:
        assert http.parse(SandboxCreate, b"") == SandboxCreate()

    @given(st.binary(max_size=200))
    def test_garbage_is_refused_or_taken_never_worse(self, body: bytes) -> None:
        error = None
        try:
            http.parse(SandboxCreate, body)
        except InvalidRequest as refused:
            error = refused
        assert error is None or error.details["fields"]


class TestCursor:
    @given(st.integers(-(2**62), 2**62), st.text(max_size=50).filter(lambda t: "\0" not in t))
    def test_there_and_back(self, number: int, word: str) -> None:
        try:
            word.encode()
        except UnicodeEncodeError:
            return
        assert http.position(http.cursor(number, word), int, str) == (number, word)

    @given(st.text(max_size=60))
    def test_anything_else_is_refused(self, text: str) -> None:
        found: object = 0
        try:
            (found,) = http.position(text, int)
        except InvalidRequest as refused:
            found = len(refused.details["fields"])
        assert isinstance(found, int)


class TestStream:
    async def test_all_chunks_then_the_end(self) -> None:
        sent = Sent()
        stream = http.Stream(_chunks(b"a", b"b"), media_type="x/y")
        await stream(scope(), _silence, sent)
        assert (sent.status, sent.body, sent.whole) == (200, b"ab", True)

    async def test_a_failure_cuts_it(self) -> None:
        sent = Sent()
        stream = http.Stream(_chunks(b"a", ValueError("late")), media_type="x/y")
        with pytest.raises(ValueError, match="late"):
            await stream(scope(), _silence, sent)
        assert (sent.body, sent.whole) == (b"a", False)

    async def test_a_reader_that_leaves_closes_the_source(self) -> None:
        closed = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
                    await asyncio.sleep(0)
            finally:
                closed.set()

        stream = http.Stream(endless(), media_type="x/y")
        await stream(scope(), receiving(b""), Sent())
        assert closed.is_set()

    async def test_the_first_chunk_is_read_ahead(self) -> None:
        with pytest.raises(ValueError, match="early"):
            await http.primed(_chunks(ValueError("early")))
        again = await http.primed(_chunks(b"a", b"b"))
        assert [chunk async for chunk in again] == [b"a", b"b"]
        assert [chunk async for chunk in await http.primed(_chunks())] == []


async def _silence() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def _chunks(*items: bytes | Exception) -> AsyncIterator[bytes]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


class TestRequestId:
    def test_a_good_one_is_taken(self) -> None:
        assert http.request_id(scope(x_request_id="a-1")) == "a-1"

    @pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "a\tb"])
    def test_others_are_replaced(self, bad: str) -> None:
        assert http.request_id(scope(x_request_id=bad)).startswith("req_")
