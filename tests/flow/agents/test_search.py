"""Searching the web, against a server that answers as the search may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from tests.flow.agents.conftest import Stage

from runtools.platform.core.models import SEARCH_KEY
from runtools.testing.scripted_model import Call, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = {
    "title": "A page",
    "url": "https://example.org/a",
    "publishedDate": "2026-01-02T03:04:05.000Z",
    "text": f"It says\n  {'much ' * 1000}",
}
BARE = {"title": None, "url": "https://example.org/b", "text": None}
MUCH = 4 * 1024 * 1024
ANSWERS: dict[str, tuple[int, bytes]] = {
    "all is well": (200, json.dumps({"results": [PAGE, BARE]}).encode()),
    "nothing": (200, b'{"results": []}'),
    "a bad key": (401, b'{"error": "no"}'),
    "too often": (429, b"{}"),
    "it is broken": (503, b""),
    "no JSON": (200, b"<html>"),
    "no results": (200, b'{"found": 1}'),
    "results that are none": (200, b'{"results": [1]}'),
    "a page without an address": (200, b'{"results": [{"title": "x"}]}'),
    "all that is allowed": (200, b'{"results": []}'.ljust(MUCH)),
    "without end": (200, b'{"results": []}'.ljust(MUCH + 1)),
}


@dataclass
class Search:
    """The search, and what it was asked."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.asked.append((head[0], headers, body))
        status, answer = ANSWERS[body["query"]]
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(answer)}\r\n\r\n".encode())
        writer.write(answer)
        writer.close()


@pytest_asyncio.fixture(loop_scope="module")
async def search(stage: Stage) -> AsyncIterator[Search]:
    """The search that the stage's workers ask."""
    made = Search()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        stage.search_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/search"
        yield made


async def found(stage: Stage, *given: dict[str, Any]) -> list[Any]:
    """What a model is told of each of its searches."""
    calls = [[Call("web_search", one)] for one in given]
    run = await stage.played(Script(*calls, ["It is done."]))
    assert run.of("done")[0]["status"] == "completed"
    return run.of("tool-result")


async def test_pages_are_found(stage: Stage, search: Search) -> None:
    stage.runs.secrets[SEARCH_KEY] = "key-of-the-org"
    [said] = await found(stage, {"query": "all is well", "results": 2})
    [(line, headers, body)] = search.asked
    assert line == "POST /search HTTP/1.1"
    assert headers["x-api-key"] == "key-of-the-org"
    assert headers["content-type"] == "application/json"
    assert (body["query"], body["numResults"]) == ("all is well", 2)
    assert body["contents"]["text"]["maxCharacters"] == 1500
    assert not said["failed"]
    first, second = said["output"].split("\n\n")
    assert first.startswith("A page\nhttps://example.org/a\n2026-01-02\nIt says much much")
    assert len(first) < 1600
    assert second == "(no title)\nhttps://example.org/b\n"
    assert "key-of-the-org" not in said["output"]


async def test_what_else_it_may_answer(stage: Stage, search: Search) -> None:
    """Each is told to the model, and the run goes on."""
    stage.runs.secrets[SEARCH_KEY] = "key-of-the-org"
    unread = "the search gave an answer that cannot be read"
    told = {
        "nothing": (False, "nothing was found"),
        "a bad key": (True, "status 401: its key is not good"),
        "too often": (True, "status 429: it may be tried again later"),
        "it is broken": (True, "status 503: it may be tried again later"),
        "no JSON": (True, unread),
        "no results": (True, unread),
        "results that are none": (True, unread),
        "a page without an address": (True, unread),
        "all that is allowed": (False, "nothing was found"),
        "without end": (True, f"the answer is larger than {MUCH} bytes"),
    }
    said = await found(stage, *({"query": query} for query in told))
    for (query, (failed, words)), one in zip(told.items(), said, strict=True):
        assert one["failed"] is failed, query
        assert words in one["output"], query
        assert "key-of-the-org" not in one["output"], query


async def test_nobody_answers(stage: Stage, search: Search) -> None:
    stage.runs.secrets[SEARCH_KEY] = "key-of-the-org"
    stage.search_url = "http://127.0.0.1:1/search"
    [said] = await found(stage, {"query": "all is well"})
    assert said["failed"]
    assert "the search did not answer" in said["output"]


async def test_without_a_key_nothing_is_asked(stage: Stage, search: Search) -> None:
    [said] = await found(stage, {"query": "all is well"})
    assert said["failed"]
    assert f"runtools secret set {SEARCH_KEY}" in said["output"]
    assert search.asked == []


@pytest.mark.parametrize("end", ["\r", " ", "\u20ac"])
async def test_a_key_that_cannot_be_sent_is_told_nobody(
    stage: Stage, search: Search, end: str
) -> None:
    stage.runs.secrets[SEARCH_KEY] = f"odd-key{end}"
    [said] = await found(stage, {"query": "all is well"})
    assert said["failed"]
    assert "its header x-api-key holds what no header may" in said["output"]
    assert "odd-key" not in said["output"]
    assert search.asked == []
