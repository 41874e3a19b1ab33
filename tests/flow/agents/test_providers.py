"""Every provider's wire over real HTTP: thinking, calls side by side, breaks in the middle, 429."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.flow.agents.conftest import Stage
from tests.flow.agents.test_loop import PNG

from runtools.platform.agents.models.build import Models
from runtools.platform.agents.models.http import Unbounded, client
from runtools.platform.core.ports.worker import ModelAccess
from runtools.platform.kit.outbound import Outbound
from runtools.testing.fake_provider import (
    IN_TOKENS,
    OUT_TOKENS,
    Break,
    Fade,
    FakeProvider,
    Filtered,
    Flood,
    Full,
    Refuse,
    Wire,
    provider,
)
from runtools.testing.scripted_model import Call, Think

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # Clients of providers say by warnings which models are old; ours is that the wire is understood.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:anthropic"),
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
]

WIRES: list[tuple[str, str, Wire]] = [
    ("anthropic", "claude-sonnet-4-5", "anthropic"),
    ("openai", "gpt-5.2", "openai"),
    ("google", "gemini-3-pro-preview", "google"),
    ("mistral", "mistral-large-latest", "mistral"),
    ("xai", "grok-4", "chat"),
    ("deepseek", "deepseek-reasoner", "chat"),
    ("groq", "llama-3.3-70b-versatile", "chat"),
    ("ollama", "qwen3:8b", "chat"),
]
BOTH = [Call("bash", {"command": "echo one"}), Call("bash", {"command": "echo two"})]
WORK = [Think("let me see"), "I look. ", *BOTH]
AT_ONCE = Refuse(429, [("Retry-After", "0")])


def access(name: str, api_id: str, fake: FakeProvider) -> ModelAccess:
    """The way to a fake provider."""
    return ModelAccess(provider=name, api_id=api_id, base_url=fake.url, api_key="sk-test-key")


@pytest.mark.parametrize(("name", "api_id", "wire"), WIRES)
async def test_a_run_over_the_wire(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire
) -> None:
    broken = ["I am going to", Break()]
    async with provider(wire, AT_ONCE, broken, WORK, ["It is ", "done."]) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["status"] == "completed", done
        assert done["output"] == "It is done."
        limited, cut = run.of("error")
        assert limited["code"] == "model_rate_limited"
        assert limited["retrying"] <= 0.5
        assert cut["code"] == "model_unavailable"
        assert {one["output"] for one in run.of("tool-result")} == {
            "one\n[exit code 0]",
            "two\n[exit code 0]",
        }
        attempts = [
            (one.data["attempt"], one.data["text"])
            for one in run.deltas
            if one.type == "text-delta"
        ]
        assert attempts[0] == (2, "I am going to")
        assert (3, "I look. ") in attempts
        if wire != "chat" or name == "deepseek":
            assert run.of("message")[1]["thinking"] == "let me see"
            assert ("thinking", "let me see") in [
                (one.type, one.data["text"]) for one in run.deltas
            ]
        usage = done["usage"]
        assert usage["inputTokens"] >= 2 * IN_TOKENS
        assert usage["outputTokens"] >= 2 * OUT_TOKENS
        assert (usage["costUsd"] is None) == (name == "ollama")
        last = json.dumps(fake.asked[-1].body)
        assert "[exit code 0]" in last
        if wire in ("anthropic", "google", "openai"):
            assert "c2lnbmVk" in last  # what the provider signed comes back as it was


@pytest.mark.parametrize(("name", "api_id", "wire"), WIRES)
async def test_a_tool_that_the_providers_client_refuses_is_left_out(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire
) -> None:
    """Before anything is sent: no answer of the provider says so."""
    odd = {"type": "object", "properties": {"where": {"type": "string", "required": True}}}
    front = {name: {"description": "", "parameters": {}} for name in ("where", "when")}
    front["when"]["parameters"] = odd
    async with provider(wire, ["done"]) as fake:
        run = stage.make(model=access(name, api_id, fake), brought={"tools": front})
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["output"] == "done", run.done
        sent = json.dumps(fake.asked[-1].body)
    assert '"where"' in sent
    assert ('"when"' in sent) == (wire == "mistral")  # whose client takes it as it is


@pytest.mark.parametrize(("name", "api_id", "wire"), [one for one in WIRES if one[2] != "mistral"])
@pytest.mark.parametrize("said", [["half an answer", Filtered()], [Filtered()]])
async def test_what_its_filter_stops_ends_the_run_and_counts(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire, said: list[Any]
) -> None:
    async with provider(wire, said, ["never"]) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert (done["status"], done["error"]["code"]) == ("failed", "model_refused"), done
        assert done["output"] == (said[0] if len(said) > 1 else None)
        assert len(fake.asked) == 1
        assert done["usage"]["outputTokens"] >= OUT_TOKENS


async def test_what_is_sent_again_is_kept_by_the_provider(stage: Stage, models: Models) -> None:
    """Anthropic keeps nothing unless it is asked to; a summary is no beginning of anything."""
    look = [Call("bash", {"command": "echo the-result"})]
    long = Refuse(400, body='{"error": {"type": "x", "message": "prompt is too long"}}')
    async with provider("anthropic", look, long, ["the summary"], ["end"]) as fake:
        run = stage.make(model=access("anthropic", "claude-sonnet-4-5", fake))
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["output"] == "end"
        first, second, summary, last = (one.body for one in fake.asked)
        for body in (first, second, last):
            assert body["cache_control"]["type"] == "ephemeral"  # up to the end of what was said
            assert body["tools"][-1]["cache_control"]["type"] == "ephemeral"
            assert body["system"][-1]["cache_control"]["type"] == "ephemeral"
        assert "cache_control" not in json.dumps(summary)


@pytest.mark.parametrize("at", [0, 4])
async def test_what_is_cut_off_is_told_why(stage: Stage, models: Models, at: int) -> None:
    """Else a model writes the same again, is cut off again, and so on up to its last iteration."""
    name, api_id, wire = WIRES[at]
    whole = Call("bash", {"command": "echo whole"})
    cut = [whole, Call("write_file", raw='{"path": "long", "content": "a'), Full()]
    nothing = [Call("list_directory", raw=""), Full()]
    async with provider(wire, cut, nothing, ["end"]) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["output"] == "end"
        results = {one["callId"]: one["output"] for one in run.of("tool-result")}
        said = [results[one["callId"]] for one in run.of("tool-call")]
        assert said[0].startswith("whole")
        assert all("max_tokens" in one and "smaller pieces" in one for one in said[1:]), said
        assert "smaller pieces" in json.dumps(fake.asked[-1].body)


@pytest.mark.parametrize(
    ("api_id", "said", "sent"),
    [
        ("claude-sonnet-4-0", {}, 32_000),
        ("claude-sonnet-4-0", {"max_tokens": 700}, 700),
        ("claude-sonnet-4-0", {"thinking": "high"}, 32_000),
        ("claude-sonnet-4-0", {"thinking": "max", "max_tokens": 40_000}, 40_000),
        ("claude-sonnet-4-20250514", {}, 32_000),
        ("claude-opus-4-1-20250805", {}, 32_000),
        ("claude-sonnet-4-5", {}, 64_000),
        ("claude-sonnet-4-5-20250929", {}, 64_000),
    ],
)
async def test_an_answer_may_be_as_long_as_the_model_can_say(
    stage: Stage, models: Models, api_id: str, said: dict[str, Any], sent: int
) -> None:
    async with provider("anthropic", ["end"]) as fake:
        run = stage.make(model=access("anthropic", api_id, fake), config=said)
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["status"] == "completed"
        assert fake.asked[0].body["max_tokens"] == sent


async def test_anthropic_is_asked_in_a_version_that_takes_a_temperature(
    stage: Stage, models: Models
) -> None:
    """From 2026-10-21 on its API refuses each request with one; new clients speak that by themselves."""
    async with provider("anthropic", ["end"]) as fake:
        said = {"temperature": 0.25, "top_k": 7}
        way = access("anthropic", "claude-sonnet-4-5", fake)
        run = stage.make(model=way, agent=said)
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["status"] == "completed"
        asked = fake.asked[0]
        assert {name: asked.body.get(name) for name in said} == said
        assert asked.headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("thinking", ["xhigh", "max"])
@pytest.mark.parametrize("config", [{}, {"max_tokens": 40_000}])
async def test_it_may_say_more_than_it_may_think(
    stage: Stage, models: Models, thinking: str, config: dict[str, Any]
) -> None:
    """Anthropic refuses what it may not; how long an answer may be is not said of a summary."""
    look = [Call("bash", {"command": "echo the-result"})]
    long = Refuse(400, body='{"error": {"type": "x", "message": "prompt is too long"}}')
    async with provider("anthropic", look, long, ["the summary"], ["end"]) as fake:
        way = access("anthropic", "claude-sonnet-4-0", fake)
        run = stage.make(model=way, agent={"thinking": thinking}, config=config)
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["output"] == "end"
        for body in (one.body for one in fake.asked):
            assert body["max_tokens"] > body["thinking"]["budget_tokens"] > 32_000
        summary = fake.asked[2].body
        assert "the-result" in json.dumps(summary["messages"])
        assert summary["max_tokens"] != 40_000


@pytest.mark.parametrize("must", [["n"], []])
@pytest.mark.parametrize("raw", ['{"n": ', ""])
async def test_a_result_that_is_cut_off_is_none(
    stage: Stage, models: Models, must: list[str], raw: str
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": must}
    cut = [Call("final_answer", raw=raw), Full()]
    async with provider("anthropic", cut, [Call("final_answer", {"n": 7})]) as fake:
        way = access("anthropic", "claude-sonnet-4-5", fake)
        run = stage.make(model=way, output_schema=schema)
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert (done["status"], done["structured"]) == ("completed", {"n": 7}), done
        refused, taken = run.of("tool-result")
        assert "before the arguments were whole" in refused["output"]
        assert taken["output"] == "taken"


@pytest.mark.parametrize(
    ("agent", "config", "sent"),
    [
        ({}, {}, None),
        ({"thinking": "high"}, {}, {"type": "enabled", "budget_tokens": 16_384}),
        ({"thinking": "high"}, {"thinking": "low"}, {"type": "enabled", "budget_tokens": 2048}),
        ({"thinking": True}, {"thinking": False}, None),
    ],
)
async def test_it_thinks_as_agent_and_run_say(
    stage: Stage, models: Models, agent: Any, config: Any, sent: Any
) -> None:
    async with provider("anthropic", ["end"]) as fake:
        way = access("anthropic", "claude-sonnet-4-5", fake)
        run = stage.make(model=way, agent=agent, config=config)
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["status"] == "completed"
        assert fake.asked[0].body.get("thinking") == sent


LOOK = [Call("bash", {"command": "echo the-result"})]
MUCH = [Call("bash", {"command": "printf %08000d 1"})]


@pytest.mark.parametrize(
    ("window", "config", "work", "is_full"),
    [
        (2000, {"max_tokens": 900}, LOOK, False),
        (2000, {"max_tokens": 990}, LOOK, True),  # such an answer might not fit beside it
        (3000, {}, LOOK, False),
        (3000, {}, MUCH, True),  # such a result would not
        (3000, {"max_tokens": 100_000}, LOOK, False),  # half of it is the conversation's
        (1300, {}, LOOK, True),
    ],
)
async def test_what_would_not_fit_into_the_window_is_summed_up_before_it_is_asked(
    stage: Stage, models: Models, window: int, config: Any, work: Any, is_full: bool
) -> None:
    """Servers of one's own may cut what is too long without a word."""
    said = [work, ["the summary"], ["end"]] if is_full else [work, ["end"]]
    async with provider("chat", *said, ["too often"]) as fake:
        way = access("ollama", "qwen3:8b", fake).model_copy(update={"context_window": window})
        run = stage.make(model=way, config=config)
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["output"] == "end"
        found = [(one["summary"], one["tokensBefore"]) for one in run.of("compaction")]
        assert found == [("the summary", IN_TOKENS + OUT_TOKENS)] * is_full


async def test_a_summary_that_does_not_help_is_not_made_again(stage: Stage, models: Models) -> None:
    """Instructions and tools alone may fill a small window: each question would cost two, for nothing."""
    async with provider("chat", LOOK, ["the summary"], *[LOOK] * 5, ["end"]) as fake:
        way = access("ollama", "qwen3:8b", fake).model_copy(update={"context_window": 1200})
        run = stage.make(model=way)
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["output"] == "end"
        assert len(run.of("compaction")) == 1
        assert len(fake.asked) == 8


async def test_a_new_run_knows_how_large_its_thread_is(stage: Stage, models: Models) -> None:
    """Also what came after the last answer: the run before has ended at a limit with it."""
    async with provider("chat", MUCH, ["the summary"], ["end"], ["too often"]) as fake:
        way = access("ollama", "qwen3:8b", fake).model_copy(update={"context_window": 3000})
        first = stage.make(model=way, config={"max_tokens": 900}, limits={"max_iterations": 1})
        stage.worker(models.build)
        assert (await stage.runs.ended(first))["status"] == "limit_reached"
        run = stage.make("go on", model=way, config={"max_tokens": 900}, earlier=first.log)
        assert (await stage.runs.ended(run))["output"] == "end"
        [compaction] = run.of("compaction")
        assert compaction["tokensBefore"] == IN_TOKENS + OUT_TOKENS


@pytest.mark.parametrize("pictures", [1, 2])
async def test_what_has_no_answer_yet_is_summed_up_by_nobody(
    stage: Stage, models: Models, pictures: int
) -> None:
    """Unless it would fill the window itself: then its words alone are kept."""
    picture = {"mediaType": "image/png", "data": base64.b64encode(PNG).decode()}
    async with provider("chat", MUCH, ["the summary"], ["end"]) as fake:
        way = access("ollama", "qwen3:8b", fake).model_copy(update={"context_window": 5000})
        first = stage.make(model=way, config={"max_tokens": 2400}, limits={"max_iterations": 1})
        stage.worker(models.build)
        await stage.runs.ended(first)
        given = {"model": way, "config": {"max_tokens": 2400}, "earlier": first.log}
        run = stage.make("look at this", images=[picture] * pictures, **given)
        assert (await stage.runs.ended(run))["output"] == "end"
        assert len(run.of("compaction")) == 1
        asked = json.dumps(fake.asked[2].body["messages"])
        assert "the summary" in asked
        assert asked.count("look at this") == 1
        assert asked.count(picture["data"]) == (pictures == 1)


async def test_a_summary_that_did_not_help_is_not_made_in_the_next_run_either(
    stage: Stage, models: Models
) -> None:
    async with provider("chat", LOOK, ["the summary"], ["end"], ["and on"]) as fake:
        way = access("ollama", "qwen3:8b", fake).model_copy(update={"context_window": 1200})
        first = stage.make(model=way)
        stage.worker(models.build)
        assert (await stage.runs.ended(first))["output"] == "end"
        assert len(first.of("compaction")) == 1
        run = stage.make("go on", model=way, earlier=first.log)
        assert (await stage.runs.ended(run))["output"] == "and on"
        assert run.of("compaction") == []


@pytest.mark.parametrize("last_line", [False, True])
async def test_an_answer_of_which_nothing_says_that_it_ends_is_none(
    stage: Stage, models: Models, last_line: bool
) -> None:
    """A gateway may have lost the server behind it, and end what it streams as if that were all."""
    async with provider("chat", ["half", Fade(last_line)], ["whole"]) as fake:
        run = stage.make(model=access("ollama", "qwen3:8b", fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["output"] == ("half" if last_line else "whole")
        assert [one["code"] for one in run.of("error")] == ["model_unavailable"] * (not last_line)


HALF = ["I am going to", Break()]


async def test_a_try_that_uses_up_a_limit_is_the_last_one(stage: Stage, models: Models) -> None:
    """Some providers say what a question took before they answer it: that is paid for."""
    async with provider("anthropic", HALF, ["too often"]) as fake:
        way = access("anthropic", "claude-sonnet-4-5", fake)
        run = stage.make(model=way, limits={"max_total_tokens": IN_TOKENS})
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["status"] == "limit_reached"
        assert done["limit"].startswith(f"max_total_tokens: {IN_TOKENS + 1} of")
        [error] = run.of("error")
        assert (error["code"], error["retrying"]) == ("model_unavailable", None)
        assert len(fake.asked) == 1


async def test_so_is_one_of_a_summary(stage: Stage, models: Models) -> None:
    async with provider("anthropic", LOOK, HALF, ["too often"]) as fake:
        way = access("anthropic", "claude-sonnet-4-5", fake)
        way = way.model_copy(update={"context_window": 1200})
        run = stage.make(model=way, limits={"max_total_tokens": 2 * IN_TOKENS})
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["status"] == "limit_reached"
        assert run.of("compaction") == []
        assert len(fake.asked) == 2


# What each says of a conversation that is too long, and so do servers of one's own.
OVERFLOWS: list[tuple[str, str, Wire, int, Any]] = [
    (*WIRES[0], 400, {"type": "error", "error": {
        "type": "invalid_request_error",
        "message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
    (*WIRES[0], 400, {"type": "error", "error": {
        "type": "invalid_request_error",
        "message": "input length and `max_tokens` exceed context limit: 175000 + 32000 > 200000,"
        " decrease input length or `max_tokens` and try again"}}),
    (*WIRES[1], 400, {"error": {
        "message": "Your input exceeds the context window of this model.",
        "type": "invalid_request_error", "param": "input", "code": "context_length_exceeded"}}),
    (*WIRES[2], 400, {"error": {
        "code": 400, "status": "INVALID_ARGUMENT",
        "message": "The input token count (1200000) exceeds the maximum number of tokens allowed"
        " (1048576)."}}),
    (*WIRES[3], 400, {"object": "error", "type": "invalid_request_prompt", "code": "3051",
        "message": "Prompt contains 140000 tokens, too large for model with 131072 maximum context"
        " length"}),
    (*WIRES[4], 400, {"code": "Client specified an invalid argument",
        "error": "This model's maximum prompt length is 131072 but the request contains 140000"
        " tokens."}),
    (*WIRES[5], 400, {"error": {"type": "invalid_request_error", "code": "invalid_request_error",
        "message": "This model's maximum context length is 65536 tokens."}}),
    (*WIRES[6], 400, {"error": {
        "message": "Please reduce the length of the messages or completion.",
        "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}),
    (*WIRES[7], 400, {"error": {"code": 400, "type": "exceed_context_size_error",
        "message": "request (9000 tokens) exceeds the available context size (4096 tokens)"}}),
    (*WIRES[7], 400, {"error": {
        "message": "the request exceeds the available context size. try increasing the context size"
        " or enable context shift"}}),
    (*WIRES[7], 413, {"error": "too many tokens"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "api_id", "wire", "status", "body"), OVERFLOWS)
async def test_a_conversation_that_it_finds_too_long_is_summed_up(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire, status: int, body: Any
) -> None:
    look = [Call("bash", {"command": "echo the-result"})]
    refuse = Refuse(status, body=json.dumps(body))
    async with provider(wire, look, refuse, ["the summary"], ["end"]) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert (done["status"], done["output"]) == ("completed", "end"), done
        [compaction] = run.of("compaction")
        assert compaction["summary"] == "the summary"
        assert len(fake.asked) == 4
        assert "the summary" in json.dumps(fake.asked[-1].body)


@pytest.mark.parametrize(("name", "api_id", "wire"), WIRES[:5])
@pytest.mark.parametrize(
    ("status", "code"), [(401, "model_unauthorized"), (404, "model_not_found")]
)
async def test_what_is_refused_says_why_and_not_by_which_key(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire, status: int, code: str
) -> None:
    body = '{"error": {"type": "x", "message": "no, sk-test-key is not good"}}'
    async with provider(wire, Refuse(status, body=body)) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["error"]["code"] == code
        assert "sk-test-key" not in str(run.log)
        assert len(fake.asked) == 1


@pytest.mark.parametrize(("name", "api_id", "wire"), WIRES[:5])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_an_answer_without_end_is_not_read_to_it(
    stage: Stage, name: str, api_id: str, wire: Wire, coding: str
) -> None:
    models = Models(lambda: client(stage.outbound, most=300_000))
    async with provider(wire, Flood(coding)) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["error"]["code"] == "model_answer_too_large", done
        why = "packed (gzip)" if coding == "gzip" else "larger than it may be"
        assert why in done["error"]["message"]
        assert fake.asked[0].headers["accept-encoding"] == "identity"
        assert len(fake.asked) == 1
    await models.close()


@pytest.mark.parametrize(
    "coding", ["gzip, gzip", "identity,GZIP", "gzip,identity", "gzip\r\nContent-Encoding: gzip"]
)
async def test_nor_one_that_is_packed_by_whatever_name(stage: Stage, coding: str) -> None:
    async with provider("chat", Flood(coding)) as fake, client(stage.outbound) as http:
        with pytest.raises(Unbounded, match="is packed"):
            await http.post(f"{fake.url}/chat/completions", json={})


async def test_nor_is_all_of_it_kept_where_it_says_too_much(
    stage: Stage, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtools.platform.agents.answer.MOST_BYTES", 1000)
    for said in (["x" * 1001], [Think("x" * 1001)], [Call("bash", {"command": "x" * 1001})]):
        async with provider("anthropic", said) as fake:
            run = stage.make(model=access("anthropic", "claude-sonnet-4-5", fake))
            stage.worker(models.build)
            done = await stage.runs.ended(run)
            assert done["error"]["code"] == "model_answer_too_large", done
            assert "more than 1000 bytes" in done["error"]["message"]
            assert "tool-call" not in run.types()


async def test_nor_does_it_make_calls_without_end(stage: Stage, models: Models) -> None:
    calls = [Call("bash", {"command": "true"})] * 129
    async with provider("chat", calls) as fake:
        run = stage.make(model=access("ollama", "qwen3:8b", fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert "more than 128 calls" in done["error"]["message"]
        assert "tool-call" not in run.types()


async def test_a_picture_that_is_refused_does_not_end_the_thread(
    stage: Stage, models: Models
) -> None:
    no = Refuse(400, body='{"error": {"type": "invalid", "message": "cannot process image"}}')
    picture = {"mediaType": "image/png", "data": base64.b64encode(PNG).decode()}
    async with provider("anthropic", no, ["I see nothing."]) as fake:
        run = stage.make(
            model=access("anthropic", "claude-sonnet-4-5", fake), images=[picture, picture]
        )
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["output"] == "I see nothing."
        assert [one["code"] for one in run.of("error")] == ["model_rejected"]
        first, second = (json.dumps(one.body["messages"]) for one in fake.asked)
        assert picture["data"] in first
        assert picture["data"] not in second
        assert second.count("refused the request with it") == 2


async def test_what_is_refused_without_a_picture_is_not_asked_again(
    stage: Stage, models: Models
) -> None:
    async with provider("anthropic", Refuse(400)) as fake:
        run = stage.make(model=access("anthropic", "claude-sonnet-4-5", fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["error"]["code"] == "model_rejected"
        assert len(fake.asked) == 1


async def test_addresses_that_are_not_allowed_are_never_connected_to(stage: Stage) -> None:
    stage.outbound.close()
    stage.outbound = Outbound()
    models = Models(lambda: client(stage.outbound))
    async with provider("chat", ["hi"]) as fake:
        run = stage.make(model=access("mine", "any", fake))
        stage.worker(models.build)
        done = await stage.runs.ended(run)
        assert done["status"] == "failed"
        assert done["error"]["code"] == "endpoint_refused"
        assert "is not public" in done["error"]["message"]
        assert fake.asked == []
    await models.close()


async def test_a_provider_without_a_key_is_told_of(stage: Stage, models: Models) -> None:
    run = stage.make(model=ModelAccess(provider="anthropic", api_id="claude-sonnet-4-5"))
    stage.worker(models.build)
    done = await stage.runs.ended(run)
    assert "there is no key for anthropic" in done["error"]["message"]


@pytest.mark.parametrize("odd", ["\n", "\r", "\x07"])
@pytest.mark.parametrize(("name", "api_id", "wire"), WIRES[:4])
async def test_a_key_that_cannot_be_sent_is_in_no_event(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire, odd: str
) -> None:
    async with provider(wire, ["hello"]) as fake:
        way = access(name, api_id, fake).model_copy(update={"api_key": f"sk-secret{odd}key"})
        run = stage.make(model=way)
        stage.worker(models.build)
        done = await stage.runs.ended(run)
    assert fake.asked == []
    assert done["error"]["code"] == "model_unauthorized", done
    assert "sk-secret" not in str(run.log)


@pytest.mark.parametrize(("name", "api_id", "wire"), WIRES[:5])
async def test_cookies_are_not_kept(
    stage: Stage, models: Models, name: str, api_id: str, wire: Wire
) -> None:
    given = Refuse(429, [("Retry-After", "0"), ("Set-Cookie", "session=of-one-org; Path=/")])
    async with provider(wire, given, ["hello"]) as fake:
        run = stage.make(model=access(name, api_id, fake))
        stage.worker(models.build)
        assert (await stage.runs.ended(run))["status"] == "completed"
    assert len(fake.asked) == 2
    assert all("cookie" not in asked.headers for asked in fake.asked)
