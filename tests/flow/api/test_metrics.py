"""`/metrics`: read by the official parser, by the operator alone, and moving when something happens."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from runtools.errors import InvalidRequest
from runtools.platform.api.metrics import token
from runtools.platform.core.ports.network import Refusal, untold
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World, holds

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest_asyncio.fixture
async def deaf(any_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A world in which webhooks may go to ports of this machine, where nobody listens."""
    db = Database(any_url)
    async with api_world.world(db, tmp_path, outbound_allow="127.0.0.0/8") as made:
        yield made


async def scrape(world: World, **headers: str) -> str:
    secret = world.platform.metrics_token
    async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
        answer = await http.get(
            "/metrics", headers={"Authorization": f"Bearer {secret}", **headers}
        )
    assert answer.status_code == 200, answer.text
    return answer.text


async def numbers(world: World) -> Numbers:
    families = list(plain(await scrape(world)))
    assert len({one.name for one in families}) == len(families)
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in families
        for one in family.samples
    }


def number(found: Numbers, name: str, **labels: str) -> float:
    return sum(
        value
        for (known, with_), value in found.items()
        if known == name and labels.items() <= dict(with_).items()
    )


class TestNumbers:
    async def test_they_move_when_acts_happen(self, any_world: World) -> None:
        world = any_world
        before = await numbers(world)
        made = [await world.create() for _ in range(3)]
        ref = made[0]["id"]
        await world.http.post(f"/v1/sandboxes/{ref}/exec", json={"command": "true"})
        for act in ("pause", "resume", "pause"):
            assert (await world.http.post(f"/v1/sandboxes/{ref}/{act}")).status_code == 200
        forked = await world.http.post(f"/v1/sandboxes/{made[1]['id']}/fork", json={"count": 1})
        assert forked.status_code == 201
        after = await numbers(world)

        def grown(name: str, **labels: str) -> float:
            return number(after, name, **labels) - number(before, name, **labels)

        assert number(after, "runtools_sandboxes", state="paused") == 1
        assert number(after, "runtools_sandboxes", state="running") == 3
        assert grown("runtools_create_seconds_count", started_from="warm") == 3
        assert grown("runtools_create_phase_seconds_count", phase="restore") == 3
        assert grown("runtools_queue_wait_seconds_count") == 3
        assert grown("runtools_act_seconds_count", act="pause", outcome="done") == 2
        assert grown("runtools_act_seconds_count", act="resume") == 1
        assert grown("runtools_act_seconds_count", act="fork") == 1
        assert grown("runtools_exec_seconds_count", outcome="done") == 1
        route = "/v1/sandboxes/{ref}/pause"
        assert grown("runtools_api_requests_total", method="POST", route=route, status="200") == 2
        assert grown("runtools_api_request_seconds_count", route="/v1/sandboxes") == 3
        assert number(after, "runtools_up") == 2
        assert number(after, "runtools_api_process_resident_memory_bytes") > 1 << 20

    async def test_refusals_count_as_often_as_they_were(self, world: World) -> None:
        world.host.meters.refused(Refusal("quic", "udp", None, "203.0.113.7", 443))
        world.host.meters.refused(untold("quic", 41))
        found = await numbers(world)
        assert number(found, "runtools_egress_refusals_total", reason="quic") == 42

    async def test_the_outbox_is_counted(self, deaf: World) -> None:
        world = deaf
        nowhere = {"url": "http://127.0.0.1:1/", "events": ["sandbox.created"]}
        assert (await world.http.post("/v1/webhooks", json=nowhere)).status_code == 201
        await world.create()
        await world.create()

        async def tried() -> bool:
            found = await numbers(world)
            return number(found, "runtools_webhook_attempts_total", outcome="failed") >= 2

        await holds(tried)
        found = await numbers(world)
        assert number(found, "runtools_webhook_outbox_events") == 2
        assert number(found, "runtools_webhook_outbox_age_seconds") > 0
        assert number(found, "runtools_webhooks", enabled="yes") == 1

    async def test_a_host_that_is_away_is_down_and_the_rest_is_told(self, world: World) -> None:
        world.host.unavailable = True
        found = await numbers(world)
        assert number(found, "runtools_up", part="host") == 0
        assert number(found, "runtools_up", part="api") == 1
        assert not any(name.startswith("runtools_create") for name, _ in found)

    async def test_no_id_and_nothing_that_a_caller_wrote_is_a_label(self, world: World) -> None:
        made = await world.create(name="my-secret-name")
        for path in (f"/v1/sandboxes/{made['id']}", "/v1/my-secret-name", "/my/secret/name"):
            await world.http.get(path)
        await world.http.request("PROPFIND", "/v1/sandboxes")
        text = await scrape(world)
        assert made["id"] not in text
        assert "secret" not in text
        assert world.org not in text
        assert "PROPFIND" not in text

    async def test_both_forms_are_spoken(self, world: World) -> None:
        accept = "application/openmetrics-text; version=1.0.0"
        text = await scrape(world, Accept=accept)
        assert text.endswith("# EOF\n")
        names = {family.name for family in open_metrics(text)}
        assert {"runtools_up", "runtools_create_seconds", "runtools_api_requests"} <= names


class TestWhoMay:
    async def test_no_api_key_opens_them(self, world: World) -> None:
        stranger = await world.stranger()
        async with stranger, httpx.AsyncClient(base_url=world.url, trust_env=False) as nobody:
            for http in (world.http, stranger, nobody):
                answer = await http.get("/metrics")
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "unauthenticated"
                assert "runtools_" not in answer.text
            wrong = {"Authorization": f"Bearer {world.platform.metrics_token}x"}
            assert (await nobody.get("/metrics", headers=wrong)).status_code == 401

    async def test_the_token_opens_nothing_else(self, world: World) -> None:
        headers = {"Authorization": f"Bearer {world.platform.metrics_token}"}
        async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
            assert (await http.get("/v1/sandboxes", headers=headers)).status_code == 401

    def test_it_is_made_once_and_its_owners_alone(self, tmp_path) -> None:
        settings = Settings(home=tmp_path)
        made = token.of(settings)
        assert token.of(settings) == made
        assert len(made) > 40
        assert stat.S_IMODE(settings.metrics_token_file.stat().st_mode) == 0o600

    def test_a_setting_takes_its_place(self, tmp_path) -> None:
        settings = Settings(home=tmp_path, metrics_token="chosen-by-the-operator")
        assert token.of(settings) == "chosen-by-the-operator"
        assert not settings.metrics_token_file.exists()
        assert "chosen" not in repr(settings)

    def test_a_short_one_is_refused_without_being_shown(self, tmp_path) -> None:
        with pytest.raises(InvalidRequest) as refused:
            token.of(Settings(home=tmp_path, metrics_token="hunter2"))
        assert "hunter2" not in str(refused.value)
