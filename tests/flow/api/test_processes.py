"""Durable processes over REST and as streams of events."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.flow.api.test_events import events

from runtools.errors import SandboxPaused
from runtools.platform.api.processes.feeds import Feeds
from runtools.testing.api_world import World, client, holds


class Box:
    """A sandbox, and asking for its processes."""

    def __init__(self, world: World, sandbox: str) -> None:
        self.world = world
        self.id = sandbox
        self.url = f"/v1/sandboxes/{sandbox}/processes"

    async def post(self, path: str = "", **sent: Any) -> httpx.Response:
        return await self.world.http.post(self.url + path, **sent)

    async def start(self, command: str | list[str], **body: Any) -> dict[str, Any]:
        answer = await self.post(json={"command": command, **body})
        assert answer.status_code == 201, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def ended(self, process: dict[str, Any]) -> dict[str, Any]:
        answer = await self.world.http.get(f"{self.url}/{process['id']}?waitMs=15000")
        data: dict[str, Any] = answer.json()["data"]
        assert data["state"] == "ended", data
        return data

    async def output(self, process: dict[str, Any], **query: Any) -> httpx.Response:
        return await self.world.http.get(f"{self.url}/{process['id']}/output", params=query)

    async def follow(self, process: dict[str, Any], query: str = "", **headers: str) -> list[Any]:
        """All events to the end."""
        url = f"{self.url}/{process['id']}/follow{query}"
        found = []
        async with asyncio.timeout(60), self.world.http.stream("GET", url, headers=headers) as got:
            assert got.status_code == 200
            async for event in events(got):
                found.append(event)
                if event[1] == "end":
                    break
        return found


@pytest_asyncio.fixture
async def box(world: World) -> AsyncIterator[Box]:
    made = await world.create()
    yield Box(world, made["id"])
    await world.http.delete(f"/v1/sandboxes/{made['id']}")


def fails(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


def nobody_knows(world: World, monkeypatch: pytest.MonkeyPatch, history: str) -> None:
    """As of sandboxes that were paused before they could say how their processes stand."""

    async def wait_process(*_: object) -> None:
        raise SandboxPaused("it is paused, and nobody knows", details={"history": history})

    monkeypatch.setattr(world.host, "wait_process", wait_process)


class TestLife:
    async def test_it_is_started_listed_and_awaited(self, box: Box) -> None:
        process = await box.start("echo out; echo err >&2; exit 3", env={"A": "b"})
        assert process["state"] == "running"
        assert process["id"].startswith("prc_")
        seen = await box.ended(process)
        assert (seen["exitCode"], seen["signal"]) == (3, None)
        listed = (await box.world.http.get(box.url)).json()["data"]
        assert [one["id"] for one in listed] == [process["id"]]
        assert (await box.output(process, stream="stdout")).content == b"out\n"
        assert (await box.output(process, stream="stderr")).content == b"err\n"

    async def test_waiting_ends_with_its_time(self, box: Box) -> None:
        process = await box.start("sleep 60")
        answer = await box.world.http.get(f"{box.url}/{process['id']}?waitMs=20")
        assert answer.json()["data"]["state"] == "running"

    async def test_a_repeat_does_not_start_another(self, box: Box) -> None:
        body, headers = {"command": "echo x >> n; cat n"}, {"Idempotency-Key": "once"}
        first = (await box.post(json=body, headers=headers)).json()["data"]
        await box.ended(first)
        again = (await box.post(json=body, headers=headers)).json()["data"]
        assert again["id"] == first["id"]
        assert (await box.output(first)).content == b"x\n"
        other = await box.post(json={"command": "true"}, headers=headers)
        fails(other, 409, "idempotency_mismatch")

    async def test_input_signals_and_the_end_of_input(self, box: Box) -> None:
        process = await box.start("cat; sleep 60")
        at = f"/{process['id']}"
        one = {"Idempotency-Key": "one"}
        for _ in range(2):
            answer = await box.post(f"{at}/input", content=b"a\xff\0\n", headers=one)
            assert answer.json()["data"] == {"taken": 4}
        assert not (await box.post(f"{at}/input/close")).json()["data"]["inputOpen"]
        fails(await box.post(f"{at}/input", content=b"x"), 409, "input_closed")
        await holds(lambda: self._has(box, process, b"a\xff\0\n"))
        assert (await box.post(f"{at}/signal", json={"signal": "KILL"})).status_code == 200
        assert (await box.ended(process))["signal"] == 9
        fails(await box.post(f"{at}/input", content=b"x"), 409, "process_ended")
        fails(await box.post(f"{at}/signal"), 409, "process_ended")

    async def _has(self, box: Box, process: dict[str, Any], data: bytes) -> bool:
        return (await box.output(process)).content == data

    async def test_a_paused_sandbox_is_woken_by_acts_and_by_no_look(self, box: Box) -> None:
        process = await box.start("cat")
        await box.world.http.post(f"/v1/sandboxes/{box.id}/pause")
        assert (await box.world.http.get(f"{box.url}/{process['id']}")).status_code == 200
        assert (await box.world.get(box.id))["state"] == "paused"
        await box.post(f"/{process['id']}/input", content=b"x")
        assert (await box.world.becomes(box.id, state="running"))["state"] == "running"

    async def test_one_that_could_not_tell_before_its_pause_is_followed_and_read(
        self, box: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = await box.start("echo hello")
        seen = await box.ended(process)
        await box.world.http.post(f"/v1/sandboxes/{box.id}/pause")
        nobody_knows(box.world, monkeypatch, seen["history"])
        look = await box.world.http.get(f"{box.url}/{process['id']}?waitMs=10")
        fails(look, 409, "sandbox_paused")
        for query in ("", f"?history={seen['history']}"):
            found = await box.follow(process, query)
            assert base64.b64decode(found[0][2]["data"]) == b"hello\n"
            assert found[-1][2]["process"]["state"] == "ended"
        refused = await box.world.http.get(f"{box.url}/{process['id']}/follow?history=other")
        fails(refused, 409, "history_changed")
        assert (await box.world.get(box.id))["state"] == "paused"
        assert (await box.output(process)).content == b"hello\n"
        await box.world.becomes(box.id, state="running")

    async def test_bytes_of_one_that_is_being_paused_wake_it_and_are_counted(
        self, box: Box
    ) -> None:
        """The host would wake it by itself, beyond what its org may run."""
        process = await box.start("echo hello")
        await box.ended(process)
        world = box.world
        org = (await world.http.get("/v1/me")).json()["data"]["orgId"]
        await world.http.patch(f"/v1/orgs/{org}/limits", json={"sandboxes": 5})
        world.host.gate.clear()
        pausing = asyncio.create_task(world.http.post(f"/v1/sandboxes/{box.id}/pause"))
        await world.becomes(box.id, operation="pausing")
        world.host.calls.clear()
        reading = asyncio.create_task(box.output(process))
        await holds(lambda: ("wait_process", box.id) in world.host.calls)
        world.host.gate.set()
        assert (await reading).content == b"hello\n"
        assert (await pausing).is_success
        assert [name for name, _ in world.host.calls if name.startswith("resume ")]


class TestOutput:
    async def test_offsets_are_in_the_headers(self, box: Box) -> None:
        process = await box.start("printf 0123456789")
        await box.ended(process)
        answer = await box.output(process, offset=3, limit=4)
        assert answer.content == b"3456"
        named = {name: answer.headers[f"x-output-{name}"] for name in ("offset", "dropped", "end")}
        assert named == {"offset": "3", "dropped": "0", "end": "7"}
        assert (await box.output(process, offset=10)).content == b""

    async def test_before_what_is_kept_it_is_said(self, box: Box) -> None:
        process = await box.start("seq 10000 19999", keepOutputBytes=4096)
        kept = (await box.ended(process))["output"]["keptFrom"]
        answer = await box.output(process, offset=6)
        assert answer.headers["x-output-offset"] == str(kept)
        assert answer.headers["x-output-dropped"] == str(kept - 6)
        [(_, _, piece), *_] = await box.follow(process)
        assert (piece["offset"], piece["dropped"]) == (kept, kept)

    @pytest.mark.parametrize("how", ["output", "follow"])
    async def test_beyond_the_end_it_is_refused(self, box: Box, how: str) -> None:
        process = await box.start("printf 0123456789")
        await box.ended(process)
        answer = await box.world.http.get(f"{box.url}/{process['id']}/{how}?offset=11")
        assert fails(answer, 400, "invalid_request")["details"]["end"] == 10

    async def test_every_event_can_be_gone_on_after(self, box: Box) -> None:
        process = await box.start("for i in 1 2 3; do echo $i; sleep 0.05; done; exit 5")
        found = await box.follow(process)
        told = b"".join(base64.b64decode(e["data"]) for _, name, e in found if name == "output")
        assert told == b"1\n2\n3\n"
        assert (found[-1][0], found[-1][2]["offset"]) == (6, 6)
        assert found[-1][2]["process"]["exitCode"] == 5
        for at in range(7):
            rest = await box.follow(process, **{"Last-Event-ID": str(at)})
            data = b"".join(base64.b64decode(e["data"]) for _, n, e in rest if n == "output")
            assert data == told[at:]
            assert rest == await box.follow(process, f"?offset={at}")

    async def test_after_a_rollback_an_old_offset_is_refused(self, box: Box) -> None:
        process = await box.start("printf 0123456789")
        old = (await box.ended(process))["history"]
        url, http = f"/v1/sandboxes/{box.id}", box.world.http
        place = f"{box.url}/{process['id']}"
        number, _, _ = (await box.follow(process, f"?history={old}"))[0]
        answer = await http.post(f"{url}/snapshots", json={"name": "kept"})
        assert answer.status_code == 201, answer.text
        assert (await http.post(f"{url}/rollback", json={"to": "kept"})).status_code == 200
        now = (await http.get(place)).json()["data"]["history"]
        assert now != old
        for path, headers in (
            (f"/output?offset=4&history={old}", {}),
            (f"/follow?offset=4&history={old}", {}),
            ("/follow", {"Last-Event-ID": f"{number}@{old}"}),
            (f"/follow?history={now}", {"Last-Event-ID": f"{number}@{old}"}),
        ):
            refused = await http.get(place + path, headers=headers)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (409, "history_changed"), path
            assert error["details"]["history"] == now
        assert (await box.output(process, offset=4, history=now)).content == b"456789"
        assert (await box.output(process, offset=4)).content == b"456789"
        bad = await http.get(f"{place}/follow", headers={"Last-Event-ID": "4@"})
        assert bad.status_code == 400

    async def test_a_revoked_key_ends_it(self, box: Box) -> None:
        process = await box.start("sleep 60")
        made = (await box.world.http.post("/v1/api-keys", json={"name": "brief"})).json()["data"]
        url = f"{box.url}/{process['id']}/follow"
        async with (
            client(box.world.url, made["key"]) as other,
            asyncio.timeout(60),
            other.stream("GET", url) as got,
        ):
            heard = asyncio.ensure_future(anext(events(got), None))
            await box.world.http.delete(f"/v1/api-keys/{made['id']}")
            assert await heard is None


class TestManyReaders:
    async def test_all_have_every_byte_of_one_stream_of_the_host(
        self, box: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        followed: list[int] = []
        follow = box.world.host.follow_output

        def counted(*args: Any) -> AsyncIterator[Any]:
            followed.append(args[3])
            return follow(*args)

        monkeypatch.setattr(box.world.host, "follow_output", counted)
        process = await box.start("read go; for i in $(seq 50); do seq 1000; done")
        readers = [asyncio.ensure_future(box.follow(process)) for _ in range(20)]
        feeds = box.world.platform.feeds
        await holds(lambda: _is(len(followed) == 1 and _readers(feeds) == 20))
        await box.post(f"/{process['id']}/input", content=b"\n")
        wanted = "".join(f"{n}\n" for n in range(1, 1001)).encode() * 50
        for found in await asyncio.gather(*readers):
            told = b"".join(base64.b64decode(e["data"]) for _, name, e in found[:-1])
            assert told == wanted
            assert found[-1][2]["process"]["exitCode"] == 0
        assert followed == [0]
        await holds(lambda: _is(len(feeds) == 0))

    async def test_one_that_never_reads_stalls_none(self, box: Box) -> None:
        process = await box.start("read go; head -c 20000000 /dev/zero", keepOutputBytes=1 << 25)
        url = f"{box.url}/{process['id']}/follow"
        async with box.world.http.stream("GET", url) as stuck:
            assert stuck.status_code == 200
            reader = asyncio.ensure_future(box.follow(process))
            await holds(lambda: _is(_readers(box.world.platform.feeds) == 2))
            await box.post(f"/{process['id']}/input", content=b"\n")
            assert (await reader)[-1][2]["offset"] == 20_000_000
            # And it has all of it still, once it reads.
            size = 0
            async with asyncio.timeout(60):
                async for _, name, event in events(stuck):
                    if name == "end":
                        break
                    assert event["offset"] == size
                    size += len(base64.b64decode(event["data"]))
            assert size == 20_000_000


async def _is(fact: bool) -> bool:
    return fact


def _readers(feeds: Feeds) -> int:
    return sum(len(feed.places) for named in feeds._feeds.values() for feed in named)


class TestBadInput:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "command"),
            ({"command": ""}, "command"),
            ({"command": "a\0"}, "command"),
            ({"command": "a", "cwd": "x"}, "cwd"),
            ({"command": "a", "user": "a b"}, "user"),
            ({"command": "a", "env": {"A": "\0"}}, "env"),
            ({"command": "a", "terminal": {"rows": 0, "columns": 0}}, "terminal.rows"),
            ({"command": "a", "terminal": {"rows": 1001}}, "terminal.rows"),
            ({"command": "a", "keepOutputBytes": 10}, "keepOutputBytes"),
            ({"command": "a", "processId": "a/b"}, "processId"),
            ({"command": "a", "timeoutMs": 1}, "timeoutMs"),
        ],
    )
    async def test_of_a_start(self, box: Box, body: dict[str, Any], field: str) -> None:
        answer = await box.post(json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["details"]["fields"][0]["field"] == field

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("resize", {"rows": 0, "columns": 0}),
            ("resize", {"rows": 24, "columns": 1001}),
            ("signal", {"signal": 0}),
            ("signal", {"signal": 65}),
            ("signal", {"signal": "NOPE"}),
            ("terminal-ticket", {}),
            ("terminal-ticket", {"origin": "*"}),
            ("terminal-ticket", {"origin": "https://a/b"}),
        ],
    )
    async def test_of_an_act(self, box: Box, path: str, body: dict[str, Any]) -> None:
        process = await box.start("sleep 60", terminal={})
        fails(await box.post(f"/{process['id']}/{path}", json=body), 400, "invalid_request")

    @pytest.mark.parametrize("query", ["offset=-1", "offset=x", "stream=both", "limit=0"])
    async def test_of_a_read(self, box: Box, query: str) -> None:
        answer = await box.world.http.get(f"{box.url}/prc_x/output?{query}")
        fails(answer, 400, "invalid_request")

    async def test_what_has_no_terminal_has_no_size(self, box: Box) -> None:
        process = await box.start("sleep 60")
        fails(await box.post(f"/{process['id']}/resize", json={}), 400, "invalid_request")

    async def test_too_much_input_at_once(self, box: Box) -> None:
        process = await box.start("cat")
        answer = await box.post(f"/{process['id']}/input", content=bytes(65_537))
        fails(answer, 413, "too_large")

    @pytest.mark.parametrize("who", ["prc_nobody", "a%2Fb", "x" * 200])
    async def test_a_process_nobody_knows(self, box: Box, who: str) -> None:
        get = box.world.http.get
        for answer in (
            await get(f"{box.url}/{who}"),
            await get(f"{box.url}/{who}/output"),
            await get(f"{box.url}/{who}/follow"),
            await box.post(f"/{who}/input", content=b"x"),
            await box.post(f"/{who}/signal"),
            await box.post(f"/{who}/resize", json={}),
            await box.post(f"/{who}/terminal-ticket", json={"origin": "https://a"}),
        ):
            fails(answer, 404, "not_found")

    async def test_another_org_sees_nothing(self, box: Box) -> None:
        process = await box.start("sleep 60")
        async with await box.world.stranger() as other:
            fails(await other.get(box.url), 404, "not_found")
            fails(await other.get(f"{box.url}/{process['id']}/follow"), 404, "not_found")
            fails(await other.post(f"{box.url}/{process['id']}/signal"), 404, "not_found")
