"""What a worker tells a collector of traces, by the conventions for generative AI."""

from __future__ import annotations

import asyncio

import pytest
from tests.flow.agents.conftest import Stage

from runtools.platform.core.ports.worker import ModelAccess
from runtools.platform.core.runs import trace_of
from runtools.platform.kit.config import Settings
from runtools.platform.kit.tracing import from_settings
from runtools.testing.collector import collector
from runtools.testing.scripted_model import Call, Do, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "nobody-may-read-this"


async def test_each_request_and_each_call_is_a_span(stage: Stage) -> None:
    with collector() as spans:
        stage.tracing = from_settings(Settings(otlp_endpoint=spans.url), "worker")
        script = Script(
            [Call("bash", {"command": f"echo {SECRET}"}), Call(f"no_{SECRET}", {})],
            [[ConnectionError("gone")], [f"It is {SECRET}."]],
        )
        run = await stage.played(script, message=SECRET)
        await asyncio.to_thread(stage.tracing.close)
        found = spans.of(trace_of(run.id).split("-")[1])
    assert sorted(one.name for one in found) == [
        "chat demo",
        "chat demo",
        "chat demo",
        "execute_tool bash",
        "execute_tool unknown",
    ]
    assert {one.part for one in found} == {"runtools-worker"}
    # All below the span of the whole run, which the api sends when it is over.
    assert {one.parent_id for one in found} == {trace_of(run.id).split("-")[2]}
    for one in found:
        assert one.kind == (3 if one.name.startswith("chat") else 1)  # a client, or internal
        assert one.failed == ("error.type" in one.attributes)
    broken, *good = sorted(
        (one.attributes for one in found if one.name == "chat demo"),
        key=lambda attributes: "error.type" not in attributes,
    )
    assert broken["error.type"] == "model_unavailable"
    assert all(one["gen_ai.usage.output_tokens"] > 0 for one in good)
    bash, unknown = sorted(
        (one.attributes for one in found if one.name.startswith("execute_tool")),
        key=lambda attributes: attributes["gen_ai.tool.name"],
    )
    assert "error.type" not in bash
    assert unknown["error.type"] == "tool_failed"
    for attributes in (broken, *good, bash, unknown):
        assert attributes["gen_ai.conversation.id"] == run.thread_id
        assert attributes["runtools.run.id"] == run.id
    assert SECRET not in repr(found)


async def test_summaries_and_what_nobody_hears_are_spans_too(stage: Stage) -> None:
    model = ModelAccess(provider="own", api_id="any", context_window=60)
    with collector() as spans:
        stage.tracing = from_settings(Settings(otlp_endpoint=spans.url), "worker")

        async def interrupt() -> None:
            await stage.runs.say(run, "no", "interrupt")
            await asyncio.Event().wait()

        async def cancel() -> None:
            await stage.runs.cancel(run)
            await asyncio.Event().wait()

        first = [[Call("grep", {"pattern": "x"})], ["the summary"], ["I think", Do(interrupt)]]
        run = stage.make(model=model)
        stage.worker(Script(first, ["and so", Do(cancel)]))
        await stage.runs.ended(run)
        await asyncio.to_thread(stage.tracing.close)
        found = [one.attributes for one in spans.of(trace_of(run.id).split("-")[1])]
    assert run.types().count("compaction") == 1
    chats = [one for one in found if one["gen_ai.operation.name"] == "chat"]
    assert [one.get("error.type") for one in chats] == [None, None, "broken_off", "broken_off"]
    for name, ours in (("input_tokens", "inputTokens"), ("output_tokens", "outputTokens")):
        took = [int(one[f"gen_ai.usage.{name}"]) for one in chats]
        assert sum(took) == run.done["usage"][ours] > 0
