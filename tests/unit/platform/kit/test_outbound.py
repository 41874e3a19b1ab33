"""Requests to addresses that users name: where they may go, and that they go nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.kit.outbound import (
    Answer,
    Failed,
    Outbound,
    Refused,
    Unsendable,
    is_public,
    networks,
    split,
)

OWN = networks("127.0.0.0/8")


@asynccontextmanager
async def server(answer: bytes, *, after: float = 0.0) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server of one answer; its port, and the requests that it got."""
    got: list[bytes] = []
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        got.append(head)
        if after:
            await asyncio.sleep(after)
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1], got
    finally:
        made.close()
        for task in serving:
            assert task is not None
            task.cancel()
            await asyncio.wait({task})
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1",
        "ff02::1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1", "fec0::1",
        "2001:db8::1",
    ],
)  # fmt: skip
def test_what_is_not_the_internets(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.216.34", "2606:4700::1111"])
def test_what_is(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/", "a.example", "https://", "https:///x", "https://u:p@a.example/",
        "https://a.example/#x", "https://a.example:0/", "https://a.example:99999/",
        "https://a.example/a b", "https://bücher.example/", "https://[::1/", "https://a.example/\n",
    ],
)  # fmt: skip
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        split(url)


def test_a_setting_with_garbage_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="outbound_allow"):
        networks("10.0.0.0/8, nonsense")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://[::ffff:7f00:1]/",
        "https://[::1]:7700/", "https://localhost/",
    ],
)  # fmt: skip
async def test_every_spelling_of_this_machine_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="not public"):
        await Outbound().check(url)
    with pytest.raises(Refused):
        await Outbound().ask("POST", url, [], b"", 5)


@pytest.mark.parametrize("host", ["a..b", ".com", f"{'a' * 64}.com"])
async def test_what_cannot_be_a_name_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="no name"):
        await Outbound().check(f"https://{host}/")
    with pytest.raises(Refused, match="no name"):
        await Outbound().ask("POST", f"https://{host}/", [], b"", 5)


@pytest.mark.parametrize(
    "key", ["key\n", "key\r", " key", "k\u20acy", "k\x07ey", "key\r\nX-More: 1"]
)
async def test_a_header_that_cannot_be_sent_is_refused_without_its_value(key: str) -> None:
    async with server(b"HTTP/1.1 200 OK\r\n\r\n") as (port, got):
        with pytest.raises(Unsendable, match=r"^its header x-api-key holds what no header may$"):
            await Outbound(OWN).ask(
                "GET", f"http://127.0.0.1:{port}/", [("x-api-key", key)], b"", 5
            )
        assert got == []


async def test_a_name_that_nobody_resolves_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtools.platform.kit.outbound._CONNECT_SECONDS", 0.01)

    async def silent(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(Refused, match=r"^a\.example was not resolved within 0\.01 s$"):
        await Outbound(resolve=silent).check("https://a.example/")


async def test_names_are_resolved_and_checked_at_each_connection() -> None:
    """A name that was good when it was set, and answers with a private address later."""
    answers = [["93.184.216.34"], ["127.0.0.1"]]

    async def rebinding(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async with server(b"HTTP/1.1 200 OK\r\n\r\n") as (port, got):
        outbound = Outbound(resolve=rebinding)
        await outbound.check(f"https://evil.example:{port}/")
        with pytest.raises(Refused, match="not public"):
            await outbound.ask("POST", f"https://evil.example:{port}/", [], b"x", 5)
        assert answers == []
        assert got == []


async def test_the_connection_goes_to_the_checked_address_and_bears_the_name() -> None:
    asked = []

    async def one(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["10.9.9.9", "127.0.0.1"]

    async with server(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, got):
        outbound = Outbound(OWN, resolve=one)
        url = f"http://hook.example:{port}/a?b=c"
        answer = await outbound.ask("POST", url, [("X", "y")], b"hi", 5)
        assert answer == Answer(204, b"")
        assert asked == ["hook.example"]
        assert got[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")
        assert f"Host: hook.example:{port}".encode() in got[0]


async def test_plain_http_needs_to_be_allowed() -> None:
    async def public(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    with pytest.raises(Refused, match="https only"):
        await Outbound(resolve=public).check("http://a.example/")


async def test_redirects_are_not_followed() -> None:
    reply = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"
    async with server(reply) as (port, got):
        answer = await Outbound(OWN).ask("POST", f"http://127.0.0.1:{port}/", [], b"", 5)
        assert answer.status == 302
        assert len(got) == 1


async def test_who_does_not_answer_is_given_up() -> None:
    async with server(b"", after=60) as (port, _):
        with pytest.raises(Failed, match=r"no answer within 0.2 s"):
            await Outbound(OWN).ask("POST", f"http://127.0.0.1:{port}/", [], b"", 0.2)


@pytest.mark.parametrize(
    "reply",
    [b"SSH-2.0-x\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"A: " + b"x" * 300_000 + b"\r\n"],
)
async def test_what_is_no_answer_is_a_failure(reply: bytes) -> None:
    async with server(reply) as (port, _):
        with pytest.raises(Failed):
            await Outbound(OWN).ask("POST", f"http://127.0.0.1:{port}/", [], b"", 5)


async def test_an_endless_answer_is_not_read() -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000
    async with server(reply) as (port, _):
        answer = await Outbound(OWN).ask("POST", f"http://127.0.0.1:{port}/", [], b"", 5)
        assert answer == Answer(200, b"")


async def test_a_body_is_read_where_it_is_asked_for_and_no_further() -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    async with server(reply) as (port, _):
        url = f"http://127.0.0.1:{port}/"
        assert await Outbound(OWN).ask("GET", url, [], b"", 5, keep=5) == Answer(200, b"hello")
        with pytest.raises(Failed, match="larger than 4 bytes"):
            await Outbound(OWN).ask("GET", url, [], b"", 5, keep=4)
