"""The catalogue and the org's own endpoints through the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtools.platform.api.models.access import access
from runtools.platform.api.secrets import sent
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World

KEY = "sk-of-the-provider-that-must-not-leak"


@asynccontextmanager
async def endpoint(status: int, body: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server of one answer; its base URL, and the requests that it got."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b"\r\n\r\n"))
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", got
    finally:
        server.close()


@pytest.fixture
async def own(any_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A platform whose operator lets URLs lead to this machine, with a key in its environment."""
    async with api_world.world(
        Database(any_url),
        tmp_path,
        outbound_allow="127.0.0.0/8",
        provider_keys={"OPENAI_API_KEY": KEY},
    ) as made:
        yield made


async def keys(world: World, http: object = None) -> dict[str, str]:
    answer = await (http or world.http).get("/v1/models")  # type: ignore[attr-defined]
    assert answer.status_code == 200
    assert KEY not in answer.text
    return {model["alias"]: model["key"] for model in answer.json()["data"]}


async def secret(world: World, name: str, **more: str) -> None:
    body = {"name": name, "value": KEY, **more}
    assert (await world.http.post("/v1/secrets", json=body)).status_code == 201


class TestCatalogue:
    async def test_says_where_the_org_has_a_key(self, own: World) -> None:
        await secret(own, "ANTHROPIC_API_KEY")
        found = await keys(own)
        assert (found["claude-haiku"], found["gpt-5"]) == ("secret", "environment")
        assert (found["grok-4"], found["demo"]) == ("missing", "not_needed")

    @pytest.mark.parametrize("kept", [{"category": "custom"}, {"scope": "sandboxes"}])
    async def test_a_secret_that_is_for_something_else_is_no_key(
        self, own: World, kept: dict[str, str]
    ) -> None:
        await secret(own, "XAI_API_KEY", **kept)
        assert (await keys(own))["grok-4"] == "missing"

    async def test_the_machines_keys_serve_the_first_org_only(self, own: World) -> None:
        async with await own.stranger() as other:
            assert (await keys(own, other))["gpt-5"] == "missing"

    async def test_prices_are_dollars_for_a_million_tokens(self, world: World) -> None:
        models = (await world.http.get("/v1/models")).json()["data"]
        priced = {model["alias"]: model["price"] for model in models}
        assert priced["claude-opus-4.5"] == {"input": "5", "output": "25"}
        assert [alias for alias, price in priced.items() if price is None] == ["demo"]


class TestEndpoints:
    async def test_is_added_asked_and_deleted(self, own: World) -> None:
        await secret(own, "VLLM_KEY")
        said = json.dumps({"data": [{"id": "qwen3:8b"}, {"id": "llama"}]}).encode()
        async with endpoint(200, said) as (url, got):
            body = {"slug": "vllm", "url": f"{url}/", "secret": "VLLM_KEY"}
            made = await own.http.post("/v1/model-endpoints", json=body)
            assert made.status_code == 201, made.text
            assert made.json()["data"]["url"] == url
            assert made.json()["data"]["key"] == "secret"
            found = await own.http.get("/v1/model-endpoints/vllm/models")
            assert [model["name"] for model in found.json()["data"]] == [
                "vllm:llama",
                "vllm:qwen3:8b",
            ]
            assert got[0].startswith(b"GET /v1/models HTTP/1.1")
            assert f"Authorization: Bearer {KEY}".encode() in got[0]
            assert KEY not in made.text + found.text
        assert (await own.http.delete("/v1/model-endpoints/vllm")).status_code == 200
        assert (await own.http.get("/v1/model-endpoints")).json()["data"] == []

    async def test_a_key_that_cannot_be_sent_is_shown_to_nobody(
        self, own: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:  # it was kept when anything was
            patch.setattr(sent, "check", lambda *_: None)
            await secret(own, "VLLM_KEY", value=f"{KEY}\r")
        async with endpoint(200, b"{}") as (url, got):
            body = {"slug": "vllm", "url": url, "secret": "VLLM_KEY"}
            assert (await own.http.post("/v1/model-endpoints", json=body)).status_code == 201
            answer = await own.http.get("/v1/model-endpoints/vllm/models")
            assert got == []
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "secret_unfit"
        assert "VLLM_KEY" in answer.json()["error"]["message"]
        assert KEY not in answer.text

    async def test_its_window_is_said_or_the_catalogues(self, own: World) -> None:
        for slug, window in (("said", 32_768), ("gate", None)):
            body = {"slug": slug, "url": "http://127.0.0.1/v1", "contextWindow": window}
            made = await own.http.post("/v1/model-endpoints", json=body)
            assert made.json()["data"]["contextWindow"] == window
        windows = {}
        for name in ("said:qwen3:8b", "gate:anthropic/claude-haiku-4-5", "gate:x", "claude-haiku"):
            windows[name] = (await access(own.platform, own.org, name)).context_window
        assert list(windows.values()) == [32_768, 200_000, None, 200_000]

    @pytest.mark.parametrize(
        ("status", "body"),
        [(401, b"{}"), (302, b""), (200, b"no json"), (200, b"[]"), (200, b'{"data": [1]}'),
         (200, b"[" * 100_000), (200, b" " * (4 * 1024 * 1024 + 1))],
    )  # fmt: skip
    async def test_what_is_no_list_of_models_is_said_to_be(
        self, own: World, status: int, body: bytes
    ) -> None:
        async with endpoint(status, body) as (url, _):
            await own.http.post("/v1/model-endpoints", json={"slug": "odd", "url": url})
            answer = await own.http.get("/v1/model-endpoints/odd/models")
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "unavailable"

    async def test_one_that_is_down_is_said_to_be(self, own: World) -> None:
        async with endpoint(200, b"") as (url, _):
            pass
        await own.http.post("/v1/model-endpoints", json={"slug": "gone", "url": url})
        answer = await own.http.get("/v1/model-endpoints/gone/models")
        assert answer.status_code == 503
        assert "did not say which models" in answer.json()["error"]["message"]

    async def test_private_addresses_need_the_operator(self, world: World) -> None:
        for url in ("http://127.0.0.1:11434/v1", "https://169.254.169.254/v1", "ftp://x/v1"):
            answer = await world.http.post("/v1/model-endpoints", json={"slug": "x", "url": url})
            assert answer.status_code == 400, url
            assert answer.json()["error"]["details"]["fields"][0]["field"] == "url"

    @pytest.mark.parametrize(
        "change",
        [{"slug": "openai"}, {"slug": "demo"}, {"slug": "A"}, {"slug": ""}, {"slug": "-a"},
         {"slug": "x" * 64}, {"slug": None}, {"slug": "\u043ellama"}, {"url": ""}, {"url": None},
         {"url": "http://127.0.0.1/v1?key=1"}, {"secret": "no-such"}, {"more": 1}],
    )  # fmt: skip
    async def test_bad_input_names_its_field(self, own: World, change: dict[str, object]) -> None:
        body = {"slug": "ollama", "url": "http://127.0.0.1:11434/v1"} | change
        answer = await own.http.post("/v1/model-endpoints", json=body)
        assert answer.status_code == 400, answer.text
        fields = answer.json()["error"]["details"]["fields"]
        assert fields[0]["field"] in change
        assert (await own.http.get("/v1/model-endpoints")).json()["data"] == []

    async def test_a_secret_must_be_there_and_be_for_models(self, own: World) -> None:
        await secret(own, "FOR_SANDBOXES", category="custom")
        body = {"slug": "o", "url": "http://127.0.0.1/v1"}
        for name, status in (("NONE", 404), ("FOR_SANDBOXES", 403)):
            answer = await own.http.post("/v1/model-endpoints", json=body | {"secret": name})
            assert answer.status_code == status, answer.text

    async def test_who_may_not_see_secrets_has_none_sent_anywhere(self, own: World) -> None:
        await secret(own, "GATE_KEY")
        asked = {"name": "models", "scopes": ["model:*", "secret:read"]}
        key = (await own.http.post("/v1/api-keys", json=asked)).json()["data"]["key"]
        async with api_world.client(own.url, key) as http:
            body = {"slug": "gate", "url": "http://127.0.0.1:9/v1"}
            answer = await http.post("/v1/model-endpoints", json={**body, "secret": "GATE_KEY"})
            assert answer.json()["error"]["details"]["needed"] == "secret:reveal"
            assert (await http.post("/v1/model-endpoints", json=body)).status_code == 201

    async def test_two_of_one_slug_and_repeats(self, own: World) -> None:
        body = {"slug": "o", "url": "http://127.0.0.1/v1"}
        named = {"Idempotency-Key": "once"}
        first = await own.http.post("/v1/model-endpoints", json=body, headers=named)
        again = await own.http.post("/v1/model-endpoints", json=body, headers=named)
        assert first.json()["data"] == again.json()["data"]
        assert (await own.http.post("/v1/model-endpoints", json=body)).status_code == 409

    async def test_another_org_sees_and_takes_nothing(self, own: World) -> None:
        await own.http.post("/v1/model-endpoints", json={"slug": "o", "url": "http://127.0.0.1/v1"})
        async with await own.stranger() as other:
            assert (await other.get("/v1/model-endpoints")).json()["data"] == []
            for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/models")):
                answer = await other.request(method, f"/v1/model-endpoints/o{path}")
                assert answer.status_code == 404
        assert len((await own.http.get("/v1/model-endpoints")).json()["data"]) == 1
