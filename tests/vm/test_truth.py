"""Numbers and traces of the whole product on a real machine, its parts in processes of their own."""

from __future__ import annotations

import os
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed
from tests.vm.conftest import House

from runtools.testing.collector import Span
from runtools.testing.real_platform import Platform, eventually

pytestmark = pytest.mark.vm


def number(platform: Platform, name: str, **labels: str) -> float:
    """A number of `/metrics`."""
    token = (platform.home / "api" / "metrics-token").read_text()
    url = f"http://127.0.0.1:{os.environ['RUNTOOLS_API_PORT']}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    return sum(
        one.value
        for family in parsed(text)
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


def test_what_happens_is_counted(platform: Platform) -> None:
    creates = "runtools_create_seconds_count"
    before = number(platform, creates, started_from="warm")
    with platform.rt.sandboxes.create() as sandbox:
        sandbox.exec("true")
        assert number(platform, creates, started_from="warm") == before + 1
        assert number(platform, "runtools_sandboxes", state="running") >= 1
        assert number(platform, "runtools_exec_overhead_seconds_count") >= 1
        sandbox.pause()
        assert number(platform, "runtools_act_seconds_count", act="pause", outcome="done") >= 1
    assert number(platform, "runtools_up") == 2
    assert number(platform, "runtools_host_memory_bytes", kind="total") > 1 << 30


def test_a_create_is_one_trace_through_both_parts(platform: Platform, house: House) -> None:
    spans = house.traces.spans
    with platform.rt.sandboxes.create() as sandbox:
        timings = sandbox.view.timings

        def creates() -> list[Span]:
            mine = [one for one in spans if one.attributes.get("runtools.sandbox.id") == sandbox.id]
            return [one for one in mine if one.name == "sandbox.create"]

        eventually(creates)
        [create] = creates()
        eventually(lambda: any(one.span_id == create.parent_id for one in spans))
        [request] = [one for one in spans if one.span_id == create.parent_id]
    assert request.name == "POST /v1/sandboxes"
    assert (create.trace_id, create.parent_id) == (request.trace_id, request.span_id)
    assert (request.part, create.part) == ("runtools-api", "runtools-host")
    phases = {span.name: span.ms for span in spans if span.parent_id == create.span_id}
    assert phases["restore"] == pytest.approx(timings.restore_ms, abs=0.1)
    assert phases["agent"] == pytest.approx(timings.agent_ms, abs=0.1)
    assert phases["first_byte"] == pytest.approx(timings.first_byte_ms, abs=0.1)
