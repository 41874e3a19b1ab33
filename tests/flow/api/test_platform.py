"""Health, hosts, space, the caller, and the document."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from runtools.platform.api.hosts import service
from runtools.testing.api_world import World
from runtools.testing.made_once import bare_app

_DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"


class TestHealth:
    async def test_no_key_is_needed(self, world: World) -> None:
        async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
            for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
                answer = await http.get(path)
                assert answer.status_code == 200
                assert answer.json()["data"]["status"] == status

    async def test_ready_means_that_a_host_answers(self, world: World) -> None:
        world.host.unavailable = True
        answer = await world.http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "unavailable"
        assert answer.json()["error"]["details"]["warnings"]
        assert (await world.http.get("/healthz")).status_code == 200

    async def test_emulation_is_a_warning(self, world: World) -> None:
        world.host.isolation = "emulated"
        await service.note(world.platform)
        for path in ("/healthz", "/readyz"):
            (warning,) = (await world.http.get(path)).json()["data"]["warnings"]
            assert "emulation" in warning


class TestHosts:
    async def test_listed_as_they_last_were(self, world: World) -> None:
        await service.note(world.platform)
        (host,) = (await world.http.get("/v1/hosts")).json()["data"]
        assert (host["id"], host["alive"], host["driver"]) == ("hst_one", True, "fake")
        world.host.unavailable = True
        (host,) = (await world.http.get("/v1/hosts")).json()["data"]
        assert (host["id"], host["alive"], host["driver"]) == ("hst_one", False, "fake")

    async def test_disk_and_prune(self, world: World) -> None:
        made = await world.create()
        use = (await world.http.get("/v1/disk")).json()["data"]
        assert use["sandboxesBytes"] == 1 << 20
        await world.http.delete(f"/v1/sandboxes/{made['id']}")
        done = (await world.http.post("/v1/prune", json={})).json()["data"]
        assert done["endedSandboxes"] == 1

    async def test_a_host_that_is_away_is_said_so(self, world: World) -> None:
        made = await world.create()
        world.host.unavailable = True
        for method, path in [("GET", "/v1/disk"), ("POST", f"/v1/sandboxes/{made['id']}/exec")]:
            body = {"command": "true"} if method == "POST" else None
            answer = await world.http.request(method, path, json=body)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "host_unavailable"
        assert (await world.get(made["id"]))["state"] == "running"


class TestAccount:
    async def test_me(self, world: World) -> None:
        me = (await world.http.get("/v1/me")).json()["data"]
        assert (me["orgId"], me["orgName"]) == (world.org, "default")
        assert (await world.create())["projectId"] == me["defaultProjectId"]

    async def test_keys_are_listed_without_themselves(self, any_world: World) -> None:
        made = await any_world.http.post("/v1/api-keys", json={"name": "ci"})
        key = made.json()["data"]["key"]
        assert len(key) >= len("rt_live_") + 43
        listed = await any_world.http.get("/v1/api-keys")
        assert key not in listed.text
        assert [entry["name"] for entry in listed.json()["data"]] == ["ci", "first key"]
        assert key.startswith(listed.json()["data"][0]["prefix"])

    async def test_last_use_is_noted(self, world: World) -> None:
        await world.http.get("/v1/me")
        await world.platform.door.write_uses()
        (entry,) = (await world.http.get("/v1/api-keys")).json()["data"]
        assert entry["lastUsedAt"] is not None

    async def test_another_orgs_key_cannot_be_revoked(self, world: World) -> None:
        mine = (await world.http.get("/v1/me")).json()["data"]["keyId"]
        async with await world.stranger() as other:
            assert (await other.delete(f"/v1/api-keys/{mine}")).status_code == 404
        assert (await world.http.get("/v1/me")).status_code == 200


class TestDocument:
    def test_the_committed_one_is_current(self) -> None:
        made = json.dumps(bare_app().openapi(), indent=1, sort_keys=True) + "\n"
        assert made == _DOCUMENT.read_text(), (
            "run: python -m runtools.platform.api > docs/openapi.json"
        )

    def test_every_reference_leads_somewhere(self) -> None:
        document = bare_app().openapi()
        text = json.dumps(document)
        for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
            assert name in document["components"]["schemas"], name
        assert "HTTPValidationError" not in text

    async def test_every_route_tells_what_it_refuses(self, world: World) -> None:
        document = (await world.http.get("/openapi.json")).json()
        of_their_own = (
            *("/v1/sandboxes", "/v1/deploys", "/v1/deploys/plan"),
            "/v1/model-endpoints/{slug}/models",
        )
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert (
                    "422" not in operation["responses"] or "builds" in path or path in of_their_own
                ), (method, path)
                assert {"400", "500"} <= set(operation["responses"]), (method, path)
                assert operation["description"], (method, path)
                named = "{ref}" in path
                assert not named or "404" in operation["responses"], (method, path)
