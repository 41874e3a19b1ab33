"""What of a front end's conversation is new to the agent."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from runtools.errors import InvalidRequest
from runtools.platform.api.frontends.asked import of_ag_ui, of_chat
from runtools.platform.api.runs.results import Given
from runtools.sdk.shapes.frontends import AgUiRun, UiChat

CALL = {"type": "dynamic-tool", "toolCallId": "c1", "state": "output-available"}


def chat(*said: tuple[str, str | None]) -> UiChat:
    """What `useChat` sends; None: an answer that is a call alone."""
    messages = [
        {"role": role, "parts": [CALL if text is None else {"type": "text", "text": text}]}
        for role, text in said
    ]
    return UiChat.model_validate({"id": "c", "messages": messages})


def ag_ui(*said: tuple[str, str | None]) -> AgUiRun:
    """What a client of AG-UI sends."""
    messages: list[Any] = []
    for role, text in said:
        messages.append({"role": role, "content": text})
        if text is None:
            messages.append({"role": "tool", "content": "ok"})
    return AgUiRun.model_validate({"threadId": "c", "runId": "r", "messages": messages})


@pytest.mark.parametrize("answer", ["b", "", None])
def test_what_was_said_before_an_answer_is_not_said_again(answer: str | None) -> None:
    said = (("user", "a"), ("assistant", answer), ("user", "c"), ("user", "d"))
    for asked in (of_chat(chat(*said)), of_ag_ui(ag_ui(*said))):
        assert [one.content for one in asked.news] == ["c", "d"]
        assert [one.content for one in asked.messages] == ["a", *filter(None, [answer]), "c", "d"]


RESUME = [{"interruptId": "run_1:c1", "status": "resolved", "payload": {"approved": True}}]


@pytest.mark.parametrize("answer", ["b", "half of", "", None])
def test_what_the_thread_has_heard_is_not_new(answer: str | None) -> None:
    """Whatever the front end keeps of the answer."""
    spoken: list[tuple[str, str | None]] = [("user", "a"), ("assistant", answer)]
    for heard, news, new in (
        (["a"], ["a"], ["a"]),
        (["a", "a"], ["a", "a"], ["a"]),
        (["a", "c"], ["c", "d"], ["d"]),
        (["a", "c"], ["d", "c"], ["d"]),
    ):
        body = ag_ui(*spoken, *(("user", one) for one in news)).model_dump(by_alias=True)
        asked = of_ag_ui(AgUiRun.model_validate({**body, "resume": RESUME}))
        assert [one.content for one in asked.unheard(heard, acts=True)] == new
        assert asked.unheard(heard)[-1].content == news[-1]  # what the request is for
        if news[-1] in new:
            asked = of_chat(chat(*spoken, *(("user", one) for one in news)))
            assert [one.content for one in asked.unheard(heard)] == new


@pytest.mark.parametrize("answer", ["b", ""])
def test_an_answer_alone_is_nothing_new(answer: str | None) -> None:
    said = (("user", "a"), ("assistant", answer))
    with pytest.raises(InvalidRequest):
        of_chat(chat(*said))
    with pytest.raises(InvalidRequest):
        of_ag_ui(ag_ui(*said))


def test_what_came_of_calls_is_told_beside_what_is_new() -> None:
    tool = {"role": "tool", "toolCallId": "run_1:c1"}
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]
    for content, error, result in (
        ("ok", None, Given("ok")),
        ([{"type": "text", "text": "o"}, {"type": "text", "text": "k"}], None, Given("ok")),
        ("", "no", Given("no", failed=True)),
    ):
        last = {**tool, "content": content, "error": error}
        body = {"threadId": "c", "runId": "r", "messages": [*said, last]}
        asked = of_ag_ui(AgUiRun.model_validate(body))
        assert (asked.news, asked.results_of("run_1")) == ([], {"c1": result})
    for part, result in (
        ({"state": "output-available", "output": "ok"}, Given("ok")),
        ({"state": "output-available", "output": {"ä": [1]}}, Given('{"ä": [1]}')),
        ({"state": "output-available"}, Given("null")),
        ({"state": "output-error", "errorText": "no"}, Given("no", failed=True)),
    ):
        parts = [{"type": "tool-where", "toolCallId": "c1", **part}]
        messages = [{"id": "m", "role": "assistant", "parts": parts}]
        chat_ = of_chat(UiChat.model_validate({"id": "c", "messages": messages}))
        assert (chat_.news, chat_.results, chat_.message) == ([], {"c1": result}, "m")


GIF = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def gif(size: int) -> bytes:
    """A whole one of so many bytes."""
    begin, end = base64.b64decode(GIF)[:-1], b";"
    return begin + bytes(size - len(begin) - 1) + end


def result(*content: Any) -> Given:
    """What a message of AG-UI says came of a call."""
    last = {"role": "tool", "toolCallId": "run_1:c1", "content": list(content)}
    body = {"threadId": "c", "runId": "r", "messages": [last]}
    return of_ag_ui(AgUiRun.model_validate(body)).results_of("run_1")["c1"]


def test_pictures_that_came_of_a_call() -> None:
    data = {"type": "image", "source": {"type": "data", "value": GIF, "mimeType": "image/gif"}}
    url = {"type": "image", "source": {"type": "url", "value": f"data:image/gif;base64,{GIF}"}}
    shown = result({"type": "text", "text": "the map"}, data, url)
    assert shown.output == "the map"
    assert [(one.media_type, one.data) for one in shown.images] == [("image/gif", GIF)] * 2
    assert result(data).output == ""
    # What cannot be shown refuses nothing: the front end would send it with every request from then on.
    for source, words in (
        ({"type": "url", "value": "https://example.org/a.png"}, "not sent along"),
        ({"type": "file", "value": "file-1"}, "not sent along"),
        ({"type": "data", "value": "%%%"}, "no base64"),
        ({"type": "data", "value": "aGk="}, "is no PNG"),
    ):
        found = result({"type": "image", "source": source})
        assert (words in found.output, found.images) == (True, ())
    large = {"type": "data", "value": base64.b64encode(gif(3_700_000)).decode()}
    many = result(data, *[{**data, "source": large}] * 2)
    assert len(many.images) == 2
    assert "too many" in many.output


def test_what_came_of_calls_is_as_long_as_any_result_may_be() -> None:
    long = "x\n" * 100_000
    parts = [
        {"type": "tool-where", "toolCallId": "c1", "state": "output-available", "output": long}
    ]
    messages = [{"id": "m", "role": "assistant", "parts": parts}]
    of_sdk = of_chat(UiChat.model_validate({"id": "c", "messages": messages})).results["c1"]
    for found in (of_sdk, result({"type": "text", "text": long})):
        assert len(found.output) < 31_000
        assert "left out here; the rest is not kept" in found.output


def test_a_result_in_a_message_of_before_a_word() -> None:
    """The run goes on, and so does its call."""
    run = f"run_{'r' * 20}"
    earlier = {"role": "assistant", "id": "run_other", "parts": [{**CALL, "output": "of another"}]}
    first = {"role": "assistant", "id": run, "parts": [{**CALL, "output": "here"}]}
    later = {"role": "assistant", "id": f"{run}-7", "parts": [{"type": "text", "text": "b"}]}
    spoken = {"role": "user", "parts": [{"type": "text", "text": "go on"}]}
    messages = [spoken, earlier, spoken, first, spoken, later]
    asked = of_chat(UiChat.model_validate({"id": "c", "messages": [*messages, spoken]}))
    assert asked.results == {}
    assert asked.results_of(run) == {"c1": Given("here")}
    assert asked.results_of("run_other") == {"c1": Given("of another")}
    assert asked.results_of("run_none") == {}


def answered(message_id: str | None, **more: Any) -> UiChat:
    """A decision in the first answer of two, and which message is gone on with."""
    approval = {"id": f"run_{'r' * 20}:c1", "approved": True}
    part = {"type": "dynamic-tool", "toolCallId": "c1", "state": "approval-responded"}
    messages = [
        {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "a"}]},
        {"id": "m2", "role": "assistant", "parts": [{**part, "approval": approval}]},
        {"id": "m3", "role": "user", "parts": [{"type": "text", "text": "b"}]},
    ]
    return UiChat.model_validate({"id": "c", "messages": messages, "messageId": message_id, **more})


def test_a_decision_is_looked_for_in_the_message_that_is_gone_on_with() -> None:
    asked = of_chat(answered("m2"))
    assert [one.what.call_id for one in asked.decisions] == ["c1"]
    assert (asked.message, asked.calls, asked.news) == ("m2", {"c1"}, [])
    assert all(one.insists for one in asked.decisions)


def test_or_before_a_word_that_was_said_before_it_was_sent() -> None:
    asked = of_chat(answered(None))
    assert [(one.what.call_id, one.insists) for one in asked.decisions] == [("c1", False)]
    assert [one.content for one in asked.news] == ["b"]
    assert of_chat(answered(None, trigger="regenerate-message")).decisions == []


def test_what_is_answered_anew() -> None:
    assert of_chat(answered(None, trigger="regenerate-message")).again
    assert of_chat(answered("m3")).again  # a message that was said otherwise
    assert not of_chat(answered(None)).again


def test_of_an_earlier_answer_nothing_is_taken() -> None:
    """The ids of its calls may be those of this one's."""
    earlier = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    tool = {"role": "tool", "toolCallId": "run_1:c1", "content": "of earlier"}
    later = {"role": "user", "content": "c"}, {"role": "assistant", "content": ""}
    mine = {"role": "tool", "toolCallId": "run_2:c1", "content": "of this one"}
    strange = {"role": "tool", "toolCallId": "c1", "content": "of nobody"}
    word = {"role": "user", "content": "never mind"}
    # Some put a result behind its call, some behind what was said last.
    for said in ([tool, *later, mine, word], [*later, tool, word, mine], [mine, strange, tool]):
        body = {"threadId": "c", "runId": "r", "messages": [*earlier, *said]}
        asked = of_ag_ui(AgUiRun.model_validate(body))
        assert asked.results_of("run_1") == {"c1": Given("of earlier")}
        assert asked.results_of("run_2") == {"c1": Given("of this one")}
        assert asked.results_of("run_3") == {}
    parts = {"role": "assistant", "parts": [{**CALL, "output": "of earlier"}]}
    open_ = {"role": "assistant", "parts": [{**CALL, "state": "input-available"}]}
    spoken = {"role": "user", "parts": [{"type": "text", "text": "go on"}]}
    of_now = {"id": "c", "messages": [spoken, parts, spoken, open_, spoken]}
    assert of_chat(UiChat.model_validate(of_now)).results == {}


WORDS = {"threadId": "c", "runId": "r"}


def test_files_of_clients_before_1_0_of_ag_ui() -> None:
    data_url = f"data:image/gif;base64,{GIF}"
    for more in ({"data": GIF}, {"url": data_url}):
        part = {"type": "binary", "mimeType": "image/gif", **more}
        messages = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}]
        [said] = of_ag_ui(AgUiRun.model_validate({**WORDS, "messages": messages})).news
        assert (said.content, said.images[0].data) == ("what is it?", GIF)
    messages = [{"role": "user", "content": [{"type": "binary", "mimeType": "x", "id": "7"}]}]
    with pytest.raises(InvalidRequest, match="data URL"):
        of_ag_ui(AgUiRun.model_validate({**WORDS, "messages": messages}))


def test_what_is_no_word_is_as_long_as_it_likes() -> None:
    long = "x" * 1_000_001
    messages = [
        {"role": "reasoning", "content": long},
        {"role": "tool", "toolCallId": "run_1:c1", "content": long},
        {"role": "tool", "toolCallId": "run_1:c2", "content": "", "error": long},
        {"role": "user", "content": "go on"},
    ]
    asked = of_ag_ui(AgUiRun.model_validate({**WORDS, "messages": messages}))
    assert [one.content for one in asked.news] == ["go on"]
    assert all("left out here" in one.output for one in asked.results_of("run_1").values())
    messages.append({"role": "user", "content": long})
    with pytest.raises(InvalidRequest):
        of_ag_ui(AgUiRun.model_validate({**WORDS, "messages": messages}))
    messages[-1]["content"] = "a"
    resume = {"interruptId": "run_1:c1", "status": "resolved"}
    resume |= {"payload": {"approved": False, "reason": long}}
    body = {**WORDS, "messages": messages, "resume": [resume]}
    [decision] = of_ag_ui(AgUiRun.model_validate(body)).decisions
    assert "left out here" in (decision.what.reason or "")


def test_tools_in_the_ai_sdks_own_words() -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}
    for given in (
        {"parameters": schema},
        {"inputSchema": schema},
        {"inputSchema": {"jsonSchema": schema}},  # what is left of `jsonSchema(…)` as JSON
    ):
        messages = [{"role": "user", "parts": [{"type": "text", "text": "a"}]}]
        body = {"id": "c", "messages": messages, "tools": {"where": {"description": "d", **given}}}
        brought = of_chat(UiChat.model_validate(body)).brought
        assert brought is not None
        assert brought["tools"] == {"where": {"description": "d", "parameters": schema}}


def test_of_two_tools_of_one_name_neither_is_meant() -> None:
    tools = [{"name": "where", "description": one} for one in ("a", "b")]
    messages = [{"role": "user", "content": "a"}]
    with pytest.raises(InvalidRequest) as raised:
        of_ag_ui(AgUiRun.model_validate({**WORDS, "messages": messages, "tools": tools}))
    assert raised.value.details["fields"][0]["field"] == "tools.1.name"
