"""Whatever is sent, the answer is a typed error and the platform goes on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World, client
from runtools.testing.made_once import sqlite_url

# One platform for all of it: whatever one test sends, the next must find it well.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A running api on SQLite."""
    folder = tmp_path_factory.mktemp("bad")
    async with api_world.world(Database(sqlite_url(folder)), folder) as made:
        yield made


_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2VXk4Ee2zlY6pO5O4Vz0zZ1zvQbq6sVWx4P3vYwz9k"


def error(answer: httpx.Response, status: int = 400, code: str = "invalid_request") -> Any:
    """The error of an answer that must be one."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "hint", "details", "requestId"}
    assert body["error"]["code"] == code
    assert body["error"]["requestId"] == answer.headers["x-request-id"]
    return body["error"]


def fields(answer: httpx.Response) -> list[str]:
    """The fields that an error names."""
    return [field["field"] for field in error(answer)["details"]["fields"]]


class TestCreate:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("template", "No Such!"),
            ("template", "base-debian@0"),
            ("template", "base-debian@x"),
            ("template", 7),
            ("name", ""),
            ("name", "Upper"),
            ("name", "-dash"),
            ("name", "a" * 64),
            ("name", "sandbox-abcdef012345"),
            ("name", "nul\0"),
            ("name", 3),
            ("tags", None),
            ("tags", []),
            ("tags", {"a": 1}),
            ("tags", {"": "x"}),
            ("tags", {"a:b": "x"}),
            ("tags", {"a": "\0"}),
            ("tags", {"a": "x" * 257}),
            ("tags", {str(n): "x" for n in range(65)}),
            ("env", None),
            ("env", {"1A": "x"}),
            ("env", {"A=B": "x"}),
            ("env", {"A": None}),
            ("env", {"A": "\0"}),
            ("sshKeys", None),
            ("sshKeys", "ssh-ed25519 AAAA"),
            ("sshKeys", ["non sense"]),
            ("sshKeys", ["ssh-ed25519 !!!!"]),
            ("sshKeys", ["ssh-rsa " + _KEY.split()[1]]),
            ("sshKeys", [f'command="sh" {_KEY}']),
            ("sshKeys", [f"{_KEY}\n{_KEY}"]),
            ("sshKeys", [_KEY] * 65),
            ("password", "short"),
            ("password", "line\nbreak1"),
            ("password", "nul\0nul\0nul"),
            ("password", "x" * 300),
            ("password", "x" * 513),
            ("idleTimeoutSeconds", -1),
            ("idleTimeoutSeconds", None),
            ("idleTimeoutSeconds", 1.5),
            ("idleTimeoutSeconds", "soon"),
            ("maxLifetimeSeconds", 0),
            ("vcpus", 0),
            ("vcpus", 65),
            ("vcpus", None),
            ("memoryMb", 255),
            ("memoryMb", 10**9),
            ("memoryMb", 10**40),
            ("diskMb", 511),
            ("diskMb", {}),
            ("internet", None),
            ("internet", "perhaps"),
            ("requireIsolation", "none"),
            ("projectId", 5),
            ("waitForReady", None),
            ("queue", []),
            ("memory", 512),
            ("Name", "x"),
        ],
    )
    async def test_each_wrong_field_is_named(self, world: World, field: str, value: Any) -> None:
        answer = await world.http.post("/v1/sandboxes", json={field: value})
        assert fields(answer)[0].split(".")[0] == field
        assert (await world.http.get("/v1/sandboxes?state=stopped")).json()["data"] == []
        assert (await world.http.get("/v1/sandboxes")).json()["data"] == []

    async def test_all_wrong_fields_are_named_at_once(self, world: World) -> None:
        answer = await world.http.post("/v1/sandboxes", json={"vcpus": 0, "name": "X", "y": 1})
        assert sorted(fields(answer)) == ["name", "vcpus", "y"]

    async def test_what_was_sent_is_not_repeated(self, world: World) -> None:
        body = {"password": "hunter2\n-hunter2", "vcpus": "hunter2"}
        assert "hunter2" not in (await world.http.post("/v1/sandboxes", json=body)).text

    async def test_unknown_template_and_project(self, world: World) -> None:
        missing = await world.http.post("/v1/sandboxes", json={"template": "nowhere"})
        assert "template build nowhere" in error(missing, 404, "not_found")["hint"]
        old = await world.http.post("/v1/sandboxes", json={"template": "base-debian@9"})
        error(old, 404, "not_found")
        project = await world.http.post("/v1/sandboxes", json={"projectId": "prj_nobody"})
        assert error(project, 404, "not_found")["details"] == {"field": "projectId"}

    async def test_five_megabytes_of_environment(self, world: World) -> None:
        body = {"env": {f"V{n}": "x" * 1024 for n in range(5 * 1024)}}
        answer = await world.http.post("/v1/sandboxes", json=body)
        assert error(answer, 413, "too_large")["details"]["limitBytes"] == 131072

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[]",
            b"null",
            b'"x"',
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"name":"\\ud800"}',
            b"{} {}",
        ],
    )
    async def test_garbage_for_json(self, world: World, body: bytes) -> None:
        error(await world.http.post("/v1/sandboxes", content=body))

    async def test_a_huge_body_is_refused_before_it_is_read(self, world: World) -> None:
        answer = await world.http.post("/v1/sandboxes", content=b" " * (11 << 20))
        assert error(answer, 413, "too_large")["details"]["limitBytes"] == 10 << 20

        async def endless() -> Any:
            while True:
                yield b" " * (1 << 20)

        # The connection may be closed on us while we still write.
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):
            error(await world.http.post("/v1/sandboxes", content=endless()), 413, "too_large")
        assert (await world.http.get("/healthz")).status_code == 200


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "",
            "a",
            "../x",
            "/..",
            "/a/../b",
            "/a/..",
            "/a%00b",
            "/" + "a" * 256,
            "/a" * 2049,
            "/%ff",
        ],
    )
    async def test_bad_ones_are_refused(self, world: World, path: str) -> None:
        base = f"/v1/sandboxes/{(await world.create())['id']}/files"
        calls = len(world.host.calls)
        for method, route in [("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/stat")]:
            answer = await world.http.request(method, f"{base}{route}?path={path}")
            error(answer, 400, "invalid_path")
        assert len(world.host.calls) == calls

    async def test_bad_ones_in_bodies_name_their_field(self, world: World) -> None:
        base = f"/v1/sandboxes/{(await world.create())['id']}/files"
        answer = await world.http.post(f"{base}/move", json={"source": "/a", "target": "b"})
        told = error(answer, 400, "invalid_path")
        assert told["details"]["fields"][0]["field"] == "target"

    @pytest.mark.parametrize(
        "query", ["path=/a&start=-1", "path=/a&start=x", "path=/a&start=5&end=2", "start=1"]
    )
    async def test_bad_ranges(self, world: World, query: str) -> None:
        base = f"/v1/sandboxes/{(await world.create())['id']}/files"
        error(await world.http.get(f"{base}?{query}"))

    @pytest.mark.parametrize("mode", ["rw", "888", "77777", "-1", "0o644"])
    async def test_bad_modes(self, world: World, mode: str) -> None:
        base = f"/v1/sandboxes/{(await world.create())['id']}/files"
        answer = await world.http.put(f"{base}?path=/a&mode={mode}", content=b"")
        assert fields(answer) == ["mode"]


class TestExec:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "command"),
            ({"command": ""}, "command"),
            ({"command": []}, "command"),
            ({"command": [""]}, "command"),
            ({"command": "a\0"}, "command"),
            ({"command": "x", "cwd": "relative"}, "cwd"),
            ({"command": "x", "user": "root; rm"}, "user"),
            ({"command": "x", "timeoutMs": 0}, "timeoutMs"),
            ({"command": "x", "stdin": "!", "stdinEncoding": "base64"}, "stdin"),
            ({"command": "x", "processId": "a b"}, "processId"),
            ({"command": "x", "tty": True}, "tty"),
        ],
    )
    async def test_each_wrong_field_is_named(self, world: World, body: Any, field: str) -> None:
        path = f"/v1/sandboxes/{(await world.create())['id']}/exec"
        answer = await world.http.post(path, json=body)
        assert answer.status_code == 400
        named = answer.json()["error"]["details"]["fields"][0]["field"]
        assert named.split(".")[0] == field

    async def test_five_megabytes_of_environment(self, world: World) -> None:
        base = f"/v1/sandboxes/{(await world.create())['id']}"
        body = {"command": "true", "env": {f"V{n}": "x" * 1024 for n in range(5 * 1024)}}
        calls = len(world.host.calls)
        for route in ("exec", "processes"):
            answer = await world.http.post(f"{base}/{route}", json=body)
            assert error(answer, 413, "too_large")["details"]["limitBytes"] == 131072
        assert len(world.host.calls) == calls

    async def test_a_command_too_long(self, world: World) -> None:
        path = f"/v1/sandboxes/{(await world.create())['id']}/exec"
        answer = await world.http.post(path, json={"command": "x" * (2 << 20)})
        error(answer, 413, "too_large")


class TestLists:
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=-5", "limit"),
            ("limit=101", "limit"),
            ("limit=x", "limit"),
            ("cursor=%21%21", "cursor"),
            ("cursor=AAAA", "cursor"),
            ("cursor=WzEsMl0", "cursor"),
            ("cursor=WzkyMjMzNzIwMzY4NTQ3NzU4MDcsICJ4Il0", "cursor"),
            ("cursor=" + "A" * 2000, "cursor"),
            ("state=asleep", "state"),
            ("tag=nocolon", "tag"),
            ("tag=:x", "tag"),
            ("tag=a:%00", "tag"),
            ("name=a%00", "name"),
            ("sate=running", "sate"),
        ],
    )
    async def test_each_wrong_parameter_is_named(
        self, world: World, query: str, field: str
    ) -> None:
        answer = await world.http.get(f"/v1/sandboxes?{query}")
        assert fields(answer)[0].split(".")[0] == field

    async def test_a_cursor_of_another_list(self, world: World) -> None:
        made = await world.create()
        await world.create()
        cursor = (await world.http.get("/v1/sandboxes?limit=1")).json()["meta"]["nextCursor"]
        answer = await world.http.get(f"/v1/sandboxes/{made['id']}/why?cursor={cursor}")
        assert fields(answer) == ["cursor"]


class TestRefs:
    @pytest.mark.parametrize(
        "ref",
        [
            "sandbox-ofnobody0000",
            "nobody",
            "Not-A-Name",
            "a%00b",
            "%ff",
            "x" * 3000,
            "..%2f..",
            "%20",
        ],
    )
    async def test_nobody_is_not_found(self, world: World, ref: str) -> None:
        for method, route in [("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("GET", "/why")]:
            answer = await world.http.request(method, f"/v1/sandboxes/{ref}{route}")
            error(answer, 404, "not_found")

    async def test_wait_seconds_has_bounds(self, world: World) -> None:
        for seconds in ("-1", "61", "x"):
            answer = await world.http.get(f"/v1/sandboxes/a?waitSeconds={seconds}")
            assert fields(answer) == ["waitSeconds"]


class TestKeys:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer rt_live_wrong"},
            {"Authorization": "Basic Zm9vOmJhcg=="},
            {"Authorization": "Bearer"},
            {"X-API-Key": ""},
            {"X-API-Key": "x" * 5000},
            {"Authorization": b"Bearer \xff\xfe"},
        ],
    )
    async def test_no_or_wrong_key(self, world: World, headers: Any) -> None:
        async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
            for path in ("/v1/sandboxes", "/v1/nothing", "/v1/events", "/anything"):
                answer = await http.get(path, headers=headers)
                error(answer, 401, "unauthenticated")
                assert answer.headers["www-authenticate"] == "Bearer"

    async def test_a_revoked_key_closes_within_a_second(self, world: World) -> None:
        made = (await world.http.post("/v1/api-keys", json={"name": "temp"})).json()["data"]
        async with client(world.url, made["key"]) as http:
            assert (await http.get("/v1/me")).json()["data"]["keyId"] == made["id"]
            await world.http.delete(f"/v1/api-keys/{made['id']}")
            error(await http.get("/v1/me"), 401, "unauthenticated")


class TestHttp:
    async def test_no_route_and_wrong_method(self, world: World) -> None:
        error(await world.http.get("/v1/nothing"), 404, "not_found")
        answer = await world.http.put("/v1/sandboxes", content=b"")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, POST"

    async def test_request_ids(self, world: World) -> None:
        mine = await world.http.get("/v1/me", headers={"X-Request-Id": "abc-1"})
        assert mine.headers["x-request-id"] == mine.json()["meta"]["requestId"] == "abc-1"
        for bad in ("a b", "x" * 200, "ä"):
            answer = await world.http.get(
                "/v1/me", headers=[(b"X-Request-Id", bad.encode("latin-1"))]
            )
            assert answer.headers["x-request-id"].startswith("req_")

    async def test_an_unforeseen_failure_is_an_answer(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> None:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr(world.host, "disk_use", broken)
        told = error(await world.http.get("/v1/disk"), 500, "internal")
        assert "secret" not in told["message"]
        assert told["requestId"] in caplog.text
