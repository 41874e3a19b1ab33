"""Traces of acts: from a caller through api and host to a real collector, and without one."""

from __future__ import annotations

import asyncio
import itertools
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from runtools.errors import InvalidRequest
from runtools.platform.api.hosts.remote import RemoteHost
from runtools.platform.api.keys.first import ensure_first
from runtools.platform.api.runs import telling
from runtools.platform.api.runs.tables import Record
from runtools.platform.api.schema import upgrade
from runtools.platform.core.runs import trace_of
from runtools.platform.host.server import serving
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.platform.kit.tracing import OFF, from_settings
from runtools.testing import api_world
from runtools.testing.api_world import client, holds
from runtools.testing.collector import Collector, Span, collector
from runtools.testing.local_host import local_host
from runtools.testing.made_once import sqlite_url

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IN_TRACE = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
SECRET = "s3cr3t-of-the-collector"
PHASES = {"queue", "place", "network", "restore", "agent", "first_byte"}


@dataclass
class Traced:
    """A platform that is traced, and where its spans go."""

    http: httpx.AsyncClient
    collector: Collector

    async def act(self, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """What an act answers, envelope and all."""
        answer = await self.http.post(f"/v1{path}", json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        envelope: dict[str, Any] = answer.json()
        return envelope

    async def trace(self, trace_id: str, *names: str) -> list[Span]:
        """A trace, once spans of these names have arrived."""
        wanted = set(names)

        def there() -> bool:
            return wanted <= {span.name for span in self.collector.of(trace_id)}

        await asyncio.to_thread(self.collector.wait, there)
        return self.collector.of(trace_id)


@pytest.fixture
def spans() -> Iterator[Collector]:
    with collector() as made:
        yield made


@asynccontextmanager
async def platform(folder: Path, endpoint: str) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        home=folder,
        disk_headroom_mb=1,
        otlp_endpoint=endpoint,
        otlp_headers=f"x-team=blue,authorization=Bearer {SECRET}",
    )
    clock, db = SystemClock(), Database(sqlite_url(folder))
    await upgrade(db)
    _, key = await ensure_first(db, clock)
    of_api, of_host = from_settings(settings, "api"), from_settings(settings, "host")
    at = folder / "host.sock"
    host = local_host(settings, tracing=of_host)
    await host.start()
    async with (
        serving(host, at, tracing=of_host),
        RemoteHost(at, of_api) as remote,
        api_world.serving(db, {api_world.HOST_ID: remote}, clock, settings, tracing=of_api) as (
            url,
            _,
        ),
        client(url, key or "") as made,
    ):
        await made.post("/v1/templates/base-debian/builds", json={})

        async def built() -> bool:
            shown = (await made.get("/v1/templates/base-debian")).json()["data"]
            return bool(shown["state"] == "ready")

        await holds(built, 60)
        yield made
        for sandbox in (await made.get("/v1/sandboxes")).json()["data"]:
            await made.delete(f"/v1/sandboxes/{sandbox['id']}")
    await host.stop()
    of_api.close()
    await asyncio.to_thread(of_host.close)


@pytest_asyncio.fixture
async def traced(tmp_path: Path, spans: Collector) -> AsyncIterator[Traced]:
    async with platform(tmp_path, spans.url) as http:
        yield Traced(http, spans)


def one(found: list[Span], name: str) -> Span:
    [span] = [span for span in found if span.name == name]
    return span


def phases_of(found: list[Span], act: Span) -> dict[str, Span]:
    return {span.name: span for span in found if span.parent_id == act.span_id}


class TestCreate:
    async def test_its_phases_are_spans_and_as_long_as_the_answer_says(
        self, traced: Traced
    ) -> None:
        envelope = await traced.act("/sandboxes", {}, **IN_TRACE)
        assert envelope["meta"]["traceId"] == TRACE
        sandbox = envelope["data"]
        found = await traced.trace(TRACE, "POST /v1/sandboxes", "sandbox.create", *PHASES)
        request, create = one(found, "POST /v1/sandboxes"), one(found, "sandbox.create")
        assert (request.part, request.parent_id, request.kind) == ("runtools-api", CALLER, 2)
        assert request.attributes["http.response.status_code"] == 201
        assert request.attributes["runtools.request.id"] == envelope["meta"]["requestId"]
        assert request.attributes["runtools.subject"] == sandbox["id"]
        assert (create.part, create.parent_id) == ("runtools-host", request.span_id)
        assert create.attributes["runtools.sandbox.id"] == sandbox["id"]
        assert create.attributes["runtools.started_from"] == sandbox["startedFrom"]
        phases = phases_of(found, create)
        assert set(phases) == PHASES
        for name, span in phases.items():
            word = name.replace("_b", "B") + "Ms"
            assert span.ms == pytest.approx(sandbox["timings"][word], abs=0.1)
        in_order = sorted(phases.values(), key=lambda span: (span.begun, span.ended))
        for before, after in itertools.pairwise(in_order):
            assert before.ended <= after.begun + 1000
        # Two clocks, of the wall and of phases, may differ by a little.
        assert create.begun - 5_000_000 <= in_order[0].begun
        assert in_order[-1].ended <= create.ended + 5_000_000
        assert sum(span.ms for span in phases.values()) <= sandbox["timings"]["totalMs"] + 0.1

    async def test_without_a_trace_of_the_callers_it_begins_one(self, traced: Traced) -> None:
        for headers in ({}, {"traceparent": "00-garbage-in-01"}):
            envelope = await traced.act("/sandboxes", {}, **headers)
            trace_id = envelope["meta"]["traceId"]
            assert trace_id != TRACE
            found = await traced.trace(trace_id, "POST /v1/sandboxes", "sandbox.create")
            assert one(found, "POST /v1/sandboxes").parent_id == ""

    async def test_one_that_fails_says_so(self, traced: Traced) -> None:
        wanted = {"requireIsolation": "hardware"}
        answer = await traced.http.post("/v1/sandboxes", json=wanted, headers=IN_TRACE)
        assert answer.json()["error"]["traceId"] == TRACE
        found = await traced.trace(TRACE, "POST /v1/sandboxes")
        request = one(found, "POST /v1/sandboxes")
        assert request.failed
        assert request.attributes["error.type"] == answer.json()["error"]["code"]
        assert request.attributes["http.response.status_code"] == answer.status_code


class TestOtherActs:
    async def test_pause_resume_and_fork(self, traced: Traced) -> None:
        ref = (await traced.act("/sandboxes", {}))["data"]["id"]
        paused = (await traced.act(f"/sandboxes/{ref}/pause"))["meta"]["traceId"]
        found = await traced.trace(paused, "sandbox.pause", "POST /v1/sandboxes/{ref}/pause")
        above = one(found, "POST /v1/sandboxes/{ref}/pause")
        assert one(found, "sandbox.pause").parent_id == above.span_id
        resumed = (await traced.act(f"/sandboxes/{ref}/resume"))["meta"]["traceId"]
        found = await traced.trace(resumed, "sandbox.resume")
        assert {"queue", "network", "restore"} <= set(
            phases_of(found, one(found, "sandbox.resume"))
        )
        forked = await traced.act(f"/sandboxes/{ref}/fork", {"count": 2})
        found = await traced.trace(
            forked["meta"]["traceId"], "sandbox.fork", "sandbox.create", *PHASES - {"queue"}
        )
        fork = one(found, "sandbox.fork")
        born = [span for span in found if span.name == "sandbox.create"]
        assert [span.parent_id for span in born] == [fork.span_id] * 2
        assert {span.attributes["runtools.started_from"] for span in born} == {"fork"}
        assert all("restore" in phases_of(found, span) for span in born)

    async def test_a_command_in_a_callers_trace_shows_what_it_woke(self, traced: Traced) -> None:
        ref = (await traced.act("/sandboxes", {}))["data"]["id"]
        await traced.act(f"/sandboxes/{ref}/pause")
        await traced.act(f"/sandboxes/{ref}/exec", {"command": "true"}, **IN_TRACE)
        found = await traced.trace(TRACE, "sandbox.resume", "POST /v1/sandboxes/{ref}/exec")
        above = one(found, "POST /v1/sandboxes/{ref}/exec")
        assert one(found, "sandbox.resume").parent_id == above.span_id


class TestRuns:
    async def test_a_run_is_a_span_in_the_words_of_the_conventions(self, traced: Traced) -> None:
        body = {"project": "p", "agents": [{"slug": "hello", "name": "H", "model": "demo"}]}
        plan = (await traced.act("/deploys/plan", body))["data"]
        await traced.act("/deploys", {**body, "plan": plan["digest"]})

        async def deployed() -> bool:
            return (await traced.http.get("/v1/agents/hello")).status_code == 200

        await holds(deployed)
        work = {"agentSlug": "hello", "message": "A secret plan."}
        run = (await traced.act("/run?waitSeconds=0", work))["data"]
        await traced.act(f"/runs/{run['id']}/cancel")

        def told() -> list[Span]:
            return [span for span in traced.collector.spans if span.name == "invoke_agent hello"]

        await asyncio.to_thread(traced.collector.wait, lambda: bool(told()))
        [span] = told()
        assert span.attributes["gen_ai.operation.name"] == "invoke_agent"
        assert span.attributes["gen_ai.conversation.id"] == run["threadId"]
        assert span.attributes["gen_ai.request.model"] == "demo"
        assert span.attributes["gen_ai.provider.name"] == "demo"
        assert span.attributes["runtools.run.status"] == "cancelled"
        # Its workers have put their spans below it before it was over.
        _, trace_id, span_id, _ = trace_of(run["id"]).split("-")
        assert (span.trace_id, span.span_id, span.parent_id) == (trace_id, span_id, "")
        assert not span.failed
        assert "secret plan" not in repr(traced.collector.spans)

    async def test_one_that_failed_says_why(self) -> None:
        now = SystemClock().now()
        words = ("id", "org_id", "project_id", "thread_id", "agent_id", "version_id", "actor", "op")
        given: dict[str, Any] = dict.fromkeys(words, "x")
        record = Record(
            **given,
            agent_slug="hello",
            agent_version=1,
            model="gate:qwen3:8b",
            created_at=now,
            queued_at=now,
            ended_at=now,
            status="failed",
            error={"code": "model_unauthorized", "message": "no"},
        )
        with collector() as spans:
            settings = Settings(otlp_endpoint=spans.url)
            traced: Any = SimpleNamespace(tracing=from_settings(settings, "api"))
            telling._trace(traced, record)
            await asyncio.to_thread(traced.tracing.close)
        [span] = spans.spans
        assert span.failed
        assert span.attributes["error.type"] == "model_unauthorized"
        assert span.attributes["gen_ai.provider.name"] == "gate"
        assert span.attributes["gen_ai.request.model"] == "qwen3:8b"


class TestCollector:
    async def test_headers_go_there_and_nowhere_else(
        self, traced: Traced, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            await traced.act("/sandboxes", {}, **IN_TRACE)
            await traced.trace(TRACE, "sandbox.create")
        assert traced.collector.headers[0]["authorization"] == f"Bearer {SECRET}"
        assert traced.collector.headers[0]["x-team"] == "blue"
        assert SECRET not in caplog.text
        assert SECRET not in repr(traced.collector.spans)

    async def test_one_that_hangs_holds_up_no_create(self, traced: Traced) -> None:
        traced.collector.hangs.set()
        await traced.act("/sandboxes", {})
        await asyncio.to_thread(traced.collector.wait, lambda: traced.collector.asked > 0)
        for _ in range(3):  # while it has a request that it does not answer
            assert (await traced.act("/sandboxes", {}))["data"]["state"] == "running"
        traced.collector.hangs.clear()

    async def test_one_that_fails_is_told_of_once_and_misses_what_was_then(
        self, traced: Traced, caplog: pytest.LogCaptureFixture
    ) -> None:
        traced.collector.status = 400
        await traced.act("/sandboxes", {})
        await holds(lambda: "do not arrive" in caplog.text, 20)
        traced.collector.status = 200
        envelope = await traced.act("/sandboxes", {})
        assert envelope["data"]["state"] == "running"
        await traced.trace(envelope["meta"]["traceId"], "sandbox.create")

    async def test_without_one_creates_go_on(self, tmp_path: Path) -> None:
        async with platform(tmp_path, "http://127.0.0.1:1") as http:
            assert (await http.post("/v1/sandboxes", json={})).status_code == 201


class TestOff:
    def test_nothing_of_it_is_loaded(self) -> None:
        look = (
            "import sys; import runtools.platform.boot.api, runtools.platform.boot.host;"
            "from runtools.platform.kit.config import Settings;"
            "from runtools.platform.kit.tracing import from_settings, OFF;"
            "assert from_settings(Settings(), 'api') is OFF;"
            "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter', 'google.protobuf', 'requests');"
            "print([name for name in sys.modules if name.startswith(heavy)])"
        )
        done = subprocess.run(
            [sys.executable, "-c", look], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"

    def test_a_span_of_nothing_is_none(self) -> None:
        with OFF.span("x", parent=IN_TRACE["traceparent"]) as span:
            assert span.trace_id is None
            assert OFF.here() is None


class TestSettings:
    @pytest.mark.parametrize(
        "endpoint", ["collector:4318", "ftp://x/", "http://", "http://user:pw@collector/"]
    )
    def test_a_wrong_endpoint_is_refused(self, endpoint: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            from_settings(Settings(otlp_endpoint=endpoint), "api")
        assert "pw" not in str(refused.value)

    def test_wrong_headers_are_refused_unseen(self) -> None:
        wrong = Settings(otlp_endpoint="http://127.0.0.1:1", otlp_headers=SECRET)
        assert SECRET not in repr(wrong)
        with pytest.raises(InvalidRequest) as refused:
            from_settings(wrong, "api")
        assert SECRET not in str(refused.value)
