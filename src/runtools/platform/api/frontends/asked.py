"""What a front end asks for, in whichever protocol: a conversation, or decisions on waiting calls. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue, ValidationError

from runtools.platform.api.runs.results import Given
from runtools.platform.core.runs import OUTPUT_TOOL
from runtools.platform.kit import http
from runtools.sdk import pictures
from runtools.sdk.shapes.definitions import BUILT_IN_TOOLS
from runtools.sdk.shapes.frontends import (
    MAX_BROUGHT_BYTES,
    AgUiContext,
    AgUiMessage,
    AgUiResume,
    AgUiRun,
    FrontTool,
    UiChat,
    UiMessage,
)
from runtools.sdk.shapes.runs import RunApproval, RunMessage, ToolImage
from runtools.workbench.bench import MAX_CHARACTERS
from runtools.workbench.cut import cut

_PICTURE = "[a picture]"
_MOST_PICTURES = 8 * 1024 * 1024  # in base64, of one result: an event has room for no more
_STATE = "the state that the application shares"
_OURS = "run_"  # how names of messages begin that a run was told in
_OF_TOOL = {"description", "parameters"}
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person has decided on a call of a run."""

    run_id: str
    what: RunApproval


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for.

    Attributes:
        chat: what the front end calls the conversation.
        messages: all of it, as far as it can be given to an agent.
        news: those of them that were said after the agent's last word.
        again: what was said before is to be answered anew, as if the answer had not been.
        decisions: on calls that wait; there is nothing else to be done then.
        results: of calls, as the front end has them; those of its own calls are to be taken in.
        named: the same of those whose run is known, by its id or the name of a message that it was told in.
        message: the front end's message that they stand in, and that is gone on with.
        calls: those that it has.
        brought: its tools, and what it says of itself.
    """

    chat: str
    messages: list[RunMessage] = field(default_factory=list)
    news: list[RunMessage] = field(default_factory=list)
    again: bool = False
    decisions: list[Decision] = field(default_factory=list)
    results: dict[str, Given] = field(default_factory=dict)
    named: dict[str, dict[str, Given]] = field(default_factory=dict)
    message: str = ""
    calls: frozenset[str] = frozenset()
    brought: dict[str, Any] | None = None

    def results_of(self, run_id: str) -> dict[str, Given]:
        """What came of calls that may be a run's: also in older messages, where it was told in them."""
        found: dict[str, Given] = {}
        for message, results in self.named.items():
            if message_of(message) == run_id:
                found |= results
        return found | self.results


def schemas_of(brought: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the tools that are brought along say of their parameters, by the field that it stands in."""
    tools = {} if brought is None else brought["tools"]
    said = {f"tools.{name}.parameters": tool["parameters"] for name, tool in tools.items()}
    return {field: schema for field, schema in said.items() if schema is not None}


def thread_of(org_id: str, agent_id: str, chat: str) -> str:
    """The thread of a chat: the same for each of its requests, another for another org or agent."""
    digest = hashlib.sha256(f"{org_id}\0{agent_id}\0{chat}".encode()).digest()
    number, letters = int.from_bytes(digest), ""
    for _ in range(20):
        number, place = divmod(number, len(_ID_LETTERS))
        letters += _ID_LETTERS[place]
    return f"thr_{letters}"


def message_id(run_id: str, after: int) -> str:
    """What a front end's message is called that a run is told in after one of its events."""
    return f"{run_id}-{after}" if after else run_id


def message_of(message: str) -> str:
    """The run that a message of that name was told of, if it is one of `message_id`."""
    return message.partition("-")[0]


def call_name(run_id: str, call_id: str) -> str:
    """What a call is called where all runs of a thread are one conversation: its id is its run's alone."""
    return f"{run_id}:{call_id}"


def call_named(name: str) -> tuple[str, str]:
    """The run and the call that are meant by such a name."""
    run_id, _, call_id = name.partition(":")
    return run_id, call_id


def of_chat(body: UiChat) -> Asked:
    """What `useChat` asks for.

    Raises:
        InvalidRequest: there is nothing that an agent could be given.
    """
    of_id = [one for one in body.messages if body.message_id and one.id == body.message_id]
    meant = (of_id or body.messages)[-1]
    again = body.trigger == "regenerate-message" or (bool(of_id) and meant.role == "user")
    decisions = [] if again else _answers(meant)
    asked = Asked(
        body.id,
        results=_outputs(_since_spoken_to(body.messages)),
        named={one.id: _outputs([one]) for one in body.messages if one.id.startswith(_OURS)},
        message=meant.id if meant.role == "assistant" else "",
        calls=frozenset(part.tool_call_id for part in meant.parts if part.tool_call_id),
        brought=_brought(body.tools or {}, [], None),
    )
    if decisions:
        return replace(asked, decisions=decisions)
    said, border = [], 0
    for n, message in enumerate(body.messages):
        if message.role == "system":
            continue
        text = "".join(part.text or "" for part in message.parts if part.type == "text")
        files = [part.url or "" for part in message.parts if part.type == "file"]
        said += _message(message.role, text, files if message.role == "user" else [], n)
        border = len(said) if message.role == "assistant" else border
    news = _news(said[border:], asked.results or any(asked.named.values()))
    return replace(asked, messages=said, news=news, again=again)


def of_ag_ui(body: AgUiRun) -> Asked:
    """What a client of AG-UI asks for.

    Raises:
        InvalidRequest: there is nothing that an agent could be given.
    """
    said, border = [], 0
    brought = _brought(
        {one.name: one for one in body.tools or ()}, body.context or [], body.state or None
    )
    named: dict[str, dict[str, Given]] = {}
    for one in body.messages:
        if one.role == "tool" and one.tool_call_id:
            run_id, call_id = call_named(one.tool_call_id)
            named.setdefault(run_id, {})[call_id] = _result(one)
    for n, message in enumerate([] if body.resume else body.messages):
        if message.role in ("user", "assistant"):
            text, files = _content(message)
            said += _message(message.role, text, files if message.role == "user" else [], n)
            # Its answer is one without text, too: a front end keeps calls alone of some.
            border = len(said) if message.role == "assistant" else border
    if body.resume:
        decisions = [_resumed(n, one) for n, one in enumerate(body.resume)]
        return Asked(body.thread_id, decisions=decisions, named=named, brought=brought)
    news = _news(said[border:], named)
    return Asked(body.thread_id, said, news, named=named, brought=brought)


def _result(message: AgUiMessage) -> Given:
    """What came of a call, as a message of AG-UI has it."""
    if message.error is not None:
        return _given(message.error or _content(message)[0], failed=True)
    return _given(*_content(message))


def _since_spoken_to(messages: Sequence[UiMessage]) -> Sequence[UiMessage]:
    """What has been said since the agent began its latest answer.

    Ids of calls are a run's own, and those of earlier runs may be the same.
    """
    begin, is_spoken_to = 0, False
    for n, one in enumerate(messages):
        if one.role == "user":
            is_spoken_to = True
        elif one.role == "assistant" and is_spoken_to:
            begin, is_spoken_to = n, False
    return messages[begin:]


def _answers(last: UiMessage) -> list[Decision]:
    """What was decided in the message that the front end is to go on with."""
    found = []
    for part in last.parts:
        if part.state != "approval-responded" or part.approval is None:
            continue
        allowed = bool(part.approval.approved)
        found.append(_decision(part.approval.id, allowed, part.approval.reason))
    return found


def _resumed(n: int, answer: AgUiResume) -> Decision:
    given = answer.payload
    said: dict[str, Any] = given if isinstance(given, dict) else {"approved": given}
    allowed, reason = said.get("approved"), said.get("reason")
    if answer.status == "cancelled":
        allowed = False
    if not isinstance(allowed, bool):
        raise http.wrong_field(f"resume.{n}.payload", "approved is to be true or false")
    return _decision(answer.interrupt_id, allowed, str(reason)[:4096] if reason else None)


def _decision(approval: str, allowed: bool, reason: str | None) -> Decision:
    run_id, call_id = call_named(approval)
    try:
        what = RunApproval(call_id=call_id, decision="allow" if allowed else "deny", reason=reason)
    except ValidationError as exc:
        raise http.invalid(exc.errors(include_url=False, include_input=False)) from None
    return Decision(run_id, what)


def _content(message: AgUiMessage) -> tuple[str, list[str]]:
    """The text, and the pictures as data URLs."""
    if isinstance(message.content, str):
        return message.content, []
    if not isinstance(message.content, list):
        return "", []
    parts = message.content
    text = "".join(part.text or "" for part in parts if part.type == "text")
    sources = [part.source for part in parts if part.source is not None]
    return text, [
        f"data:;base64,{one.value}" if one.type == "data" else one.value for one in sources
    ]


def _message(role: str, text: str, files: Sequence[str], n: int) -> list[RunMessage]:
    """A message; nothing, where nothing was said."""
    images = [_image(url, f"messages.{n}") for url in files]
    if not text and not images:
        return []
    try:
        content = text or _PICTURE
        return [RunMessage.model_validate({"role": role, "content": content, "images": images})]
    except ValidationError as exc:
        raise http.invalid(
            [
                {**error, "loc": ("messages", n, *error["loc"])}
                for error in exc.errors(include_url=False, include_input=False)
            ]
        ) from None


def _image(url: str, where: str) -> dict[str, str]:
    """A file that was sent along. What it is, its bytes say: front ends name its kind or do not."""
    data = _sent_along(url)
    if data is None:
        raise http.wrong_field(where, "a file is to be sent along as a data URL in base64")
    try:
        kind = pictures.kind_of(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        raise http.wrong_field(where, "a file's data is no base64") from None
    if kind is None:
        raise http.wrong_field(where, "a file is no PNG, JPEG, GIF or WebP picture")
    return {"mediaType": kind, "data": data}


def _sent_along(url: str) -> str | None:
    """The base64 of a data URL; None: it is another."""
    head, _, data = url.partition(",")
    return data if head.startswith("data:") and head.endswith(";base64") else None


def _given(text: str, files: Sequence[str] = (), *, failed: bool = False) -> Given:
    """What came of a call, as a model can be shown it: a text is cut, and what is no picture told in words.

    Nothing of it is refused: a front end would send the same each time, from then on.
    """
    words, images, room = [text] if text or not files else [], [], _MOST_PICTURES
    for url in files:
        found = _pictured(url, room)
        if isinstance(found, ToolImage):
            room -= len(found.data)
            images.append(found)
        else:
            words.append(found)
    shown = cut("\n".join(words), MAX_CHARACTERS, "the rest is not kept")
    return Given(shown, failed, tuple(images))


def _pictured(url: str, room: int) -> ToolImage | str:
    """A picture that a call gave back; words, where it is none or there is no room for it."""
    data = _sent_along(url)
    if data is None:
        return "[a file that was not sent along]"
    if len(data) > room:
        return "[a picture: there were too many at once]"
    try:
        bytes_ = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return "[a file that is no base64]"
    if (wrong := pictures.fault(bytes_)) is not None:
        return f"[a file that cannot be shown: it {wrong}]"
    return ToolImage(media_type=str(pictures.kind_of(bytes_)), data=data)


def _outputs(messages: Sequence[UiMessage]) -> dict[str, Given]:
    """What came of calls, as the messages of a chat have it."""
    found = {}
    for part in (one for message in messages for one in message.parts if one.tool_call_id):
        if part.state == "output-available":
            is_text = isinstance(part.output, str)
            text = part.output if is_text else json.dumps(part.output, ensure_ascii=False)
            found[str(part.tool_call_id)] = _given(text)
        elif part.state == "output-error":
            found[str(part.tool_call_id)] = _given(part.error_text or "it failed", failed=True)
    return found


def _brought(
    tools: Mapping[str, FrontTool], context: Sequence[AgUiContext], state: JsonValue
) -> dict[str, Any] | None:
    """What a front end brings along, as a run keeps it; None: nothing.

    Raises:
        InvalidRequest: a tool has a name that is taken or parameters of no object, or it is too much.
    """
    for name, tool in tools.items():
        if name in BUILT_IN_TOOLS or name == OUTPUT_TOOL:
            raise http.wrong_field(
                "tools", f"the agent has a tool {name} of its own: name it otherwise"
            )
        if tool.parameters is not None and tool.parameters.get("type", "object") != "object":
            raise http.wrong_field(f"tools.{name}.parameters.type", 'it is to be "object"')
    said = [{"description": one.description, "value": one.value} for one in context]
    if state is not None:
        value = state if isinstance(state, str) else json.dumps(state, ensure_ascii=False)
        said.append({"description": _STATE, "value": value})
    if not tools and not said:
        return None
    kept = {name: one.model_dump(mode="json", include=_OF_TOOL) for name, one in tools.items()}
    brought = {"tools": kept, "context": said}
    if (size := len(json.dumps(brought))) > MAX_BROUGHT_BYTES:
        limit = f"tools, context and state may have {MAX_BROUGHT_BYTES} bytes together"
        raise http.wrong_field("tools" if tools else "context", f"{limit}, and have {size}")
    return brought


def _news(said: list[RunMessage], results: object) -> list[RunMessage]:
    if not said and not results:
        raise http.wrong_field("messages", "the last of them is to be the user's")
    return said
