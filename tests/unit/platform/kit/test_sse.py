"""Events on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.kit import sse
from runtools.platform.kit.sse import Event, EventStream, resume_point


async def _two() -> AsyncGenerator[Event, None]:
    yield Event("a", b'{"n":1}', 1)
    yield Event("b", b"{}")


class TestEventStream:
    async def test_the_form_of_events(self) -> None:
        chunks = [chunk async for chunk in EventStream(_two()).chunks]
        assert b"".join(chunks) == (
            b': open\n\nid: 1\nevent: a\ndata: {"n":1}\n\nevent: b\ndata: {}\n\n'
        )

    async def test_pings_lose_no_event(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sse, "PING_SECONDS", 0.01)
        go = asyncio.Event()

        async def slow() -> AsyncGenerator[Event, None]:
            await go.wait()
            yield Event("a", b"1", 1)

        found = []
        async for chunk in EventStream(slow()).chunks:
            found.append(chunk)
            if found.count(b": ping\n\n") == 2:
                go.set()
        assert found[-1] == b"id: 1\nevent: a\ndata: 1\n\n"

    async def test_leaving_closes_the_source(self) -> None:
        closed = asyncio.Event()

        async def waiting() -> AsyncGenerator[Event, None]:
            try:
                await asyncio.Event().wait()
                yield Event("never", b"")
            finally:
                closed.set()

        chunks = EventStream(waiting()).chunks
        assert isinstance(chunks, AsyncGenerator)
        await anext(chunks)
        reading = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait((reading,))
        await chunks.aclose()
        assert closed.is_set()


class TestResumePoint:
    def test_the_header_wins(self) -> None:
        scope = {"type": "http", "headers": [(b"last-event-id", b"7")]}
        assert resume_point(scope, 3) == 7
        assert resume_point({"type": "http", "headers": []}, 3) == 3
        assert resume_point({"type": "http", "headers": []}, None) is None

    @pytest.mark.parametrize("text", [b"", b"x", b"-1", b"9" * 30, b"\xb2"])
    def test_others_are_refused(self, text: bytes) -> None:
        with pytest.raises(InvalidRequest):
            resume_point({"type": "http", "headers": [(b"last-event-id", text)]}, None)
