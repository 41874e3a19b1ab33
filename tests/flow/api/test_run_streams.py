"""Reading runs: answers that wait, streams that replay and follow, and threads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from runtools.errors import NotFound
from runtools.platform.api.logs import store as logs
from runtools.platform.api.runs import readers
from runtools.platform.api.threads import service as threads
from runtools.testing.api_world import client, holds
from runtools.testing.fake_worker import asked, called, said, used
from runtools.testing.run_stage import Stage, follow

pytestmark = pytest.mark.asyncio(loop_scope="module")

GIF = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def waiting(stage: Stage, run_id: str) -> Any:
    """What waits for a run to change."""
    return stage.world.platform.bus._watches.get(run_id, ())


class TestAnswer:
    async def test_it_waits_for_the_end(self, stage: Stage) -> None:
        body = {"agentSlug": "coder", "message": "x"}
        asking = asyncio.create_task(stage.org.http.post("/v1/run?waitSeconds=30", json=body))
        run, given = await stage.next()
        await stage.worker.finish(run, "The end.")
        answer = await asking
        assert answer.status_code == 200
        assert answer.json()["data"]["output"] == "The end."
        assert answer.headers["x-run-id"] == run.run_id
        assert answer.headers["x-thread-id"] == given.run.thread_id

    async def test_it_does_not_wait_for_people(self, stage: Stage) -> None:
        body = {"agentSlug": "coder", "message": "x"}
        asking = asyncio.create_task(stage.org.http.post("/v1/run?waitSeconds=30", json=body))
        run, _ = await stage.next()
        await stage.worker.append(run, called("bash"), asked("bash"), wait=True)
        answer = await asking
        assert (answer.status_code, answer.json()["data"]["status"]) == (202, "waiting")
        await stage.org.ask("POST", f"/v1/runs/{run.run_id}/cancel")

    async def test_time_that_is_up_is_no_failure(self, stage: Stage) -> None:
        body = {"agentSlug": "coder", "message": "x"}
        answer = await stage.org.http.post("/v1/run?waitSeconds=1", json=body)
        assert (answer.status_code, answer.json()["data"]["status"]) == (202, "queued")
        run_id = answer.json()["data"]["id"]
        asking = asyncio.create_task(stage.org.ask("GET", f"/v1/runs/{run_id}?waitSeconds=30"))
        run, _ = await stage.take(run_id)
        await stage.worker.finish(run)
        assert (await asking)["status"] == "completed"

    async def test_whose_key_is_revoked_meanwhile_is_told_nothing(self, stage: Stage) -> None:
        body = {"agentSlug": "coder", "message": "x"}
        key = await stage.org.ask("POST", "/v1/api-keys", json={"name": "waits"})
        async with client(stage.world.url, key["key"]) as http:
            asking = asyncio.create_task(http.post("/v1/run?waitSeconds=3600", json=body))
            run, _ = await stage.next()
            looking = asyncio.create_task(http.get(f"/v1/runs/{run.run_id}?waitSeconds=60"))
            await holds(lambda: len(waiting(stage, run.run_id)) == 2)
            await stage.org.ask("DELETE", f"/v1/api-keys/{key['id']}")
            await stage.worker.finish(run, "The end.")
            for answer in await asyncio.gather(asking, looking):
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "unauthenticated"
                assert "The end." not in answer.text
        assert (await stage.get(run.run_id))["output"] == "The end."

    async def test_nor_does_it_wait_on(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        key = await stage.org.ask("POST", "/v1/api-keys", json={"name": "waits"})
        async with client(stage.world.url, key["key"]) as http:
            looking = asyncio.create_task(http.get(f"/v1/runs/{run.run_id}?waitSeconds=60"))
            await holds(lambda: waiting(stage, run.run_id))
            await stage.org.ask("DELETE", f"/v1/api-keys/{key['id']}")
            assert (await looking).status_code == 401  # before the run has ended
        await stage.worker.finish(run)

    async def test_who_signs_in_anew_and_repeats_finds_the_run(self, stage: Stage) -> None:
        path, body = "/v1/run?waitSeconds=", {"agentSlug": "coder", "message": "x"}
        key = {"Idempotency-Key": "across-two-sessions"}
        ann = await stage.world.person("admin", email="ann-waits@example.org")
        asking = asyncio.create_task(ann.http.post(f"{path}60", json=body, headers=key))
        run, _ = await stage.next()
        sessions = stage.world.platform.sessions
        _, secret = await sessions.open(ann.user_id, "cli", "test", "127.0.0.1")
        async with client(stage.world.url, secret) as again:
            assert (await again.delete(f"/v1/sessions/{ann.session_id}")).status_code == 200
            assert (await asking).status_code == 401
            await stage.worker.finish(run)
            answer = await again.post(f"{path}60", json=body, headers=key)
            assert answer.json()["data"]["id"] == run.run_id
        await ann.http.aclose()

    async def test_who_goes_away_waits_no_longer(self, stage: Stage) -> None:
        body = {"agentSlug": "coder", "message": "x"}
        asking = asyncio.create_task(stage.org.http.post("/v1/run?waitSeconds=3600", json=body))
        run, _ = await stage.next()
        await holds(lambda: waiting(stage, run.run_id))
        asking.cancel()
        await holds(lambda: not waiting(stage, run.run_id))
        [line] = await stage.org.ask("GET", f"/v1/audit?resource={run.run_id}")
        assert line["status"] is None  # nobody was answered
        await stage.worker.finish(run)

    async def test_a_repeat_is_the_same_run(self, stage: Stage) -> None:
        body = {"agentSlug": "coder", "message": "x"}
        key = {"Idempotency-Key": "the-same-run"}
        path = "/v1/run?waitSeconds=0"
        tries = [stage.org.http.post(path, json=body, headers=key) for _ in range(3)]
        answers = await asyncio.gather(*tries)
        assert len({one.json()["data"]["id"] for one in answers}) == 1
        run, _ = await stage.take(answers[0].json()["data"]["id"])
        await stage.worker.finish(run)
        again = await stage.org.http.post(path, json=body, headers=key)
        assert again.json()["data"]["status"] == "completed"
        other = await stage.org.http.post(path, json={**body, "message": "y"}, headers=key)
        assert other.json()["error"]["code"] == "idempotency_mismatch"

    @pytest.mark.parametrize(
        ("more", "status", "code"),
        [
            ({"agentSlug": "nobody"}, 404, "not_found"),
            ({"threadId": "thr_" + "0" * 20}, 404, "not_found"),
            ({"sandboxId": "sandbox-000000000000"}, 404, "not_found"),
            ({"messages": [{"role": "user", "content": "x"}]}, 400, "invalid_request"),
            ({"outputSchema": {"type": "array"}}, 400, "invalid_request"),
            (
                {"images": [{"mediaType": "image/png", "data": "%%%"}]},
                400,
                "invalid_request",
            ),
            (
                {"images": [{"mediaType": "image/png", "data": "PHN2Zy8+"}]},
                400,
                "invalid_request",
            ),
            ({"images": [{"mediaType": "image/png", "data": GIF}]}, 400, "invalid_request"),
        ],
    )
    async def test_what_cannot_be_is_told(
        self, stage: Stage, more: dict[str, Any], status: int, code: str
    ) -> None:
        body = {"agentSlug": "coder", "message": "x", **more}
        answer = await stage.org.http.post("/v1/run?waitSeconds=0", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)

    async def test_a_thread_is_one_agents(self, stage: Stage) -> None:
        made = await stage.run()
        body = {"agentSlug": "shared", "message": "x", "threadId": made["threadId"]}
        answer = await stage.org.http.post("/v1/run", json=body)
        assert answer.json()["error"]["code"] == "conflict"
        await stage.org.ask("POST", f"/v1/runs/{made['id']}/cancel")

    async def test_a_conversation_can_be_brought_along(self, stage: Stage) -> None:
        messages = [
            {"role": "user", "content": "What is it?"},
            {"role": "assistant", "content": "A cat."},
            {"role": "user", "content": "Sure?"},
        ]
        body = {"agentSlug": "coder", "messages": messages}
        answer = await stage.org.http.post("/v1/run?waitSeconds=0", json=body)
        run, given = await stage.take(answer.json()["data"]["id"])
        told = [(one.data["role"], one.data["text"]) for one in given.log[1:]]
        assert told == [(one["role"], one["content"]) for one in messages]
        await stage.worker.finish(run)


class TestStream:
    async def test_a_run_is_told_as_it_goes(self, stage: Stage) -> None:
        body = {"agentSlug": "coder", "message": "x", "stream": True}
        seen: list[dict[str, Any]] = []
        async with stage.org.http.stream("POST", "/v1/run", json=body) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            run, given = await stage.take(stream.headers["x-run-id"])
            assert stream.headers["x-thread-id"] == given.run.thread_id
            lines = stream.aiter_lines()
            await _until(lines, seen, 2)
            for n in range(3):
                await stage.worker.delta(run, "text-delta", text=f"{n}", turn=1, attempt=1)
            await _until(lines, seen, 5)
            await stage.worker.finish(run, "012")
            await _until(lines, seen, 8)
        assert [one["type"] for one in seen] == [
            "run-started", "message", "text-delta", "text-delta", "text-delta",
            "message", "usage", "done",
        ]  # fmt: skip
        assert "".join(one["data"]["text"] for one in seen[2:5]) == "012"
        assert all("seq" not in one for one in seen[2:5])

    async def test_who_leaves_changes_nothing(self, stage: Stage) -> None:
        body = {"agentSlug": "coder", "message": "x", "stream": True}
        async with stage.org.http.stream("POST", "/v1/run", json=body) as stream:
            run_id = stream.headers["x-run-id"]
        run, _ = await stage.take(run_id)
        await holds(lambda: not stage.world.platform.readers.reads(run_id))
        await stage.worker.finish(run)
        assert (await stage.get(run_id))["status"] == "completed"

    async def test_many_read_along_and_each_misses_nothing(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        reading = [
            asyncio.create_task(_all(stage.org.http, run.run_id, after))
            for after in (0, 1, 2, 0, 1, 2)
        ]
        for turn in range(1, 30):
            await stage.worker.append(run, said(f"{turn}", turn), called("bash", f"c{turn}", turn))
        await stage.worker.finish(run)
        last = (await stage.get(run.run_id))["lastSeq"]
        for task, after in zip(reading, (0, 1, 2, 0, 1, 2), strict=True):
            assert [one["seq"] for one in await task] == list(range(after + 1, last + 1))

    async def test_one_that_reconnects_misses_and_repeats_nothing(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        seen: list[int] = []

        async def read() -> None:
            while not seen or seen[-1] < 2 + 2 * 40 + 3:
                headers = {"Last-Event-ID": str(seen[-1] if seen else 0)}
                path = f"/v1/runs/{run.run_id}/events"
                count = 0
                async with stage.org.http.stream("GET", path, headers=headers) as stream:
                    async for line in stream.aiter_lines():
                        if line.startswith("id: "):
                            seen.append(int(line.removeprefix("id: ")))
                            count += 1
                        if count == 7:
                            break

        reading = asyncio.create_task(read())
        for turn in range(1, 41):
            await stage.worker.append(run, said(f"{turn}", turn), called("bash", f"c{turn}", turn))
        await stage.worker.finish(run)
        await asyncio.wait_for(reading, 30)
        assert seen == list(range(1, 2 + 2 * 40 + 3 + 1))

    async def test_what_another_process_appends_is_seen(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        reading = asyncio.create_task(_all(stage.org.http, run.run_id, 0))
        await holds(lambda: stage.world.platform.readers.reads(run.run_id))
        platform = stage.world.platform
        quiet = platform.readers.grown
        platform.readers.grown = lambda *_: None  # type: ignore[method-assign]
        try:
            await stage.worker.finish(run)
            assert [one["seq"] for one in await reading] == [1, 2, 3, 4, 5]
        finally:
            platform.readers.grown = quiet  # type: ignore[method-assign]

    async def test_the_database_is_read_once_for_all(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = await stage.taken()
        reads = 0
        events = logs.events

        def counted(*args: Any) -> Any:
            nonlocal reads
            reads += 1
            return events(*args)

        reading = [asyncio.create_task(_all(stage.org.http, run.run_id, 2)) for _ in range(20)]
        await holds(lambda: len(stage.world.platform.readers) == 20)
        await holds(lambda: _caught_up(stage, run.run_id))
        monkeypatch.setattr(logs, "events", counted)
        for turn in range(1, 20):
            await stage.worker.append(run, said(f"{turn}", turn))
        await stage.worker.finish(run)
        await asyncio.gather(*reading)
        assert reads < 20

    async def test_one_that_has_ended_is_told_whole_and_from_anywhere(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        await stage.worker.finish(run)
        assert [one["seq"] for one in await _all(stage.org.http, run.run_id, 0)] == [1, 2, 3, 4, 5]
        assert [one["seq"] for one in await _all(stage.org.http, run.run_id, 4)] == [5]
        # Beyond the end there is the end, not a stream that never says anything.
        assert [one["type"] for one in await _all(stage.org.http, run.run_id, 99)] == ["done"]

    async def test_it_ends_when_the_key_is_revoked(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        key = await stage.org.ask("POST", "/v1/api-keys", json={"name": "reader"})
        async with client(stage.world.url, key["key"]) as http:
            reading = asyncio.create_task(_all(http, run.run_id, 0))
            await holds(lambda: stage.world.platform.readers.reads(run.run_id))
            await stage.org.ask("DELETE", f"/v1/api-keys/{key['id']}")
            assert len(await asyncio.wait_for(reading, 60)) == 2
        await stage.worker.finish(run)


class TestSlow:
    async def test_a_slow_reader_loses_pieces_and_no_event(self, stage: Stage) -> None:
        run, _ = await stage.taken()
        platform = stage.world.platform

        async def log(after: int) -> tuple[list[Any], bool]:
            return await platform.db.read(logs.events, stage.org.id, run.run_id, after)

        async def may() -> bool:
            return True

        pieces = platform.readers.follow(run.run_id, 0, log, may)
        got = [await anext(pieces)]
        for n in range(3 * readers.PIECES):
            await stage.worker.delta(run, "text-delta", text=f"{n} ", turn=1, attempt=1)
        for _ in range(20):
            large = "x" * (readers.PIECES_BYTES // 8)
            await stage.worker.delta(run, "text-delta", text=large, turn=1, attempt=1)
        await stage.worker.append(run, said("All of it."))
        await stage.worker.delta(run, "text-delta", text="more", turn=2, attempt=1)
        await stage.worker.finish(run)
        got += [one async for one in pieces]
        text = b"".join(got).decode()
        assert [int(one[4:]) for one in text.split("\n") if one.startswith("id: ")] == [
            1, 2, 3, 4, 5, 6,
        ]  # fmt: skip
        assert 0 < text.count("event: text-delta") <= readers.PIECES
        assert len(text) < 2 * readers.PIECES_BYTES


class TestThreads:
    async def test_named_read_exported_and_deleted(self, stage: Stage) -> None:
        run, given = await stage.taken("  What is\n a cat? " + "x" * 200)
        await stage.worker.append(run, said("An animal."), used(), called("bash"))
        thread_id = given.run.thread_id
        path = f"/v1/threads/{thread_id}"
        shown = await stage.org.ask("GET", path)
        assert shown["title"].startswith("What is a cat? xxx")
        assert len(shown["title"]) == 80
        assert shown["runs"] == 1
        busy = await stage.org.http.delete(path)
        assert busy.json()["error"]["details"]["runs"] == [run.run_id]
        await stage.worker.finish(run)
        named = await stage.org.ask("PATCH", path, json={"title": "Cats"})
        assert named["title"] == "Cats"
        listed = await stage.org.ask("GET", "/v1/threads?agent=coder&limit=100")
        assert thread_id in [one["id"] for one in listed]
        told = await stage.org.ask("GET", f"{path}/messages")
        assert [one["role"] for one in told] == ["user", "assistant", "assistant"]
        whole = await stage.org.ask("GET", f"{path}/export")
        assert [one["id"] for one in whole["runs"]] == [run.run_id]
        assert [one["seq"] for one in whole["events"]] == list(range(1, len(whole["events"]) + 1))
        spent = (await stage.org.ask("GET", "/v1/limits"))["used"]["agentTokens"]
        await stage.org.ask("DELETE", path)
        for gone in (path, f"/v1/runs/{run.run_id}"):
            assert (await stage.org.http.get(gone)).status_code == 404
        assert (await stage.org.ask("GET", "/v1/limits"))["used"]["agentTokens"] == spent

    async def test_runs_are_listed_by_what_they_are(self, stage: Stage) -> None:
        run, given = await stage.taken()
        listed = await stage.org.ask("GET", "/v1/runs?status=running&agent=coder")
        assert run.run_id in [one["id"] for one in listed]
        mine = await stage.org.ask("GET", f"/v1/runs?threadId={given.run.thread_id}")
        assert [one["id"] for one in mine] == [run.run_id]
        assert (
            await stage.org.ask("GET", f"/v1/runs?threadId={given.run.thread_id}&status=failed")
            == []
        )
        await stage.worker.finish(run)


async def _caught_up(stage: Stage, run_id: str) -> bool:
    feed = stage.world.platform.readers._feeds[run_id]
    return feed.high is not None


async def _until(lines: Any, seen: list[dict[str, Any]], count: int) -> None:
    async with asyncio.timeout(60):
        while len(seen) < count:
            line = await anext(lines)
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))


async def _all(http: httpx.AsyncClient, run_id: str, after: int) -> list[dict[str, Any]]:
    return [one async for one in follow(http, run_id, after)]


class TestPieces:
    async def test_a_log_is_handed_over_in_pieces_whatever_its_size(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, given = await stage.taken("One.")
        thread_id = given.run.thread_id
        await stage.worker.append(first, said("Two."), used(), called("bash", command="ls"))
        await stage.worker.finish(first)
        made = await stage.run("Three.", threadId=thread_id)
        run, _ = await stage.take(made["id"])
        await stage.worker.append(run, said("Four."))
        await stage.worker.release(run)
        monkeypatch.setattr(logs, "PIECE_BYTES", 10)  # so each has one event
        run, given = await stage.take(run.run_id)
        assert given.log_goes_on
        assert given.earlier_goes_on
        log, more = list(given.log), True
        while more:
            news = await stage.worker.read(run, log[-1].seq or 0)
            log, more = log + news.events, news.more
        assert [one.seq for one in log] == [1, 2, 3]
        earlier, more = list(given.earlier), True
        while more:
            last = earlier[-1]
            piece = await stage.worker.earlier(run, last.run_id, last.seq or 0)
            earlier, more = earlier + piece.events, piece.more
        assert [one.seq for one in earlier] == [2, 3, 4, 5, 6, 7]
        with pytest.raises(NotFound):
            await stage.worker.earlier(run, "run_" + "x" * 20, 0)
        await stage.worker.finish(run)
        assert [one["seq"] for one in await _all(stage.org.http, run.run_id, 0)] == [
            1, 2, 3, 4, 5, 6,
        ]  # fmt: skip
        path = f"/v1/threads/{thread_id}"
        told, cursor = [], ""
        while cursor is not None:
            more_of_it = f"&cursor={cursor}" if cursor else ""
            answer = (await stage.org.http.get(f"{path}/messages?limit=2{more_of_it}")).json()
            told += answer["data"]
            cursor = answer["meta"]["nextCursor"]
        assert [one["text"] for one in told] == [
            "One.",
            "Two.",
            "Done.",
            "Three.",
            "Four.",
            "Done.",
        ]
        monkeypatch.setattr(threads, "_RUNS", 1)
        whole = await stage.org.ask("GET", f"{path}/export")
        assert [one["id"] for one in whole["runs"]] == [first.run_id, run.run_id]
        assert len(whole["events"]) == 8 + 6

    async def test_a_cursor_of_another_list_is_refused(self, stage: Stage) -> None:
        run, given = await stage.taken()
        await stage.worker.finish(run)
        path = f"/v1/threads/{given.run.thread_id}/messages"
        for cursor in ("x", "WzFd", "a" * 900):
            answer = await stage.org.http.get(f"{path}?cursor={cursor}")
            assert answer.status_code == 400


class TestNumbersBeyondTheEnd:
    async def test_who_asks_for_one_is_given_what_comes_and_holds_up_nobody(
        self, stage: Stage
    ) -> None:
        run, _ = await stage.taken("Hello?")

        async def read(after: int) -> list[str]:
            path = f"/v1/runs/{run.run_id}/events?after={after}"
            async with asyncio.timeout(20), stage.org.http.stream("GET", path) as stream:
                return [line async for line in stream.aiter_lines() if line.startswith("event: ")]

        early = asyncio.create_task(read(10**9))
        await holds(lambda: len(stage.world.platform.readers) == 1)
        late = asyncio.create_task(read(0))
        await holds(lambda: len(stage.world.platform.readers) == 2)
        await stage.worker.finish(run)
        assert (await early)[-1] == (await late)[-1] == "event: done"
