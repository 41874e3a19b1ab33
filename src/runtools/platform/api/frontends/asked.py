"""What a front end asks for, in whichever protocol: a conversation, and decisions on waiting calls. Pure.

A front end sends the whole chat each time. What it says now is checked; of what it has said before nothing
is refused, since it would send the same each time, from then on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import JsonValue, ValidationError

from runtools.errors import InvalidRequest
from runtools.platform.api.runs.results import Given
from runtools.platform.core.runs import OUTPUT_TOOL
from runtools.platform.kit import http
from runtools.sdk import pictures
from runtools.sdk.shapes.definitions import BUILT_IN_TOOLS
from runtools.sdk.shapes.frontends import (
    MAX_BROUGHT_BYTES,
    AgUiContext,
    AgUiMessage,
    AgUiPart,
    AgUiResume,
    AgUiRun,
    AgUiTool,
    FrontTool,
    UiApproval,
    UiChat,
    UiMessage,
    UiTool,
)
from runtools.sdk.shapes.runs import MAX_MESSAGE_CHARACTERS, RunApproval, RunMessage, ToolImage
from runtools.workbench.bench import MAX_CHARACTERS
from runtools.workbench.cut import cut

_PICTURE = "[a picture]"
_PICTURES_BYTES = (
    8 * 1024 * 1024
)  # in base64, of one message or result: an event has room for no more
_MOST_PICTURES = 16  # of one message
_LEFT_OUT = "the rest is not kept"
_REASON = 4096  # characters
_FOR_THAT = 256  # characters of a text that is cut, for the words that say so
_STATE = "the state that the application shares"
_OURS = "run_"  # how names of messages begin that a run was told in
_OF_TOOL = {"description", "parameters"}
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person has decided on a call of a run.

    Attributes:
        insists: it is an answer, and who gives it is told where it came too late. Otherwise the call is
            decided on where it is one of the chat's run that waits still, so that the person's word can be
            heard.
    """

    run_id: str
    what: RunApproval
    insists: bool = True


@dataclass(frozen=True, slots=True)
class Word:
    """What was said in a message, as the front end has it.

    Attributes:
        place: of the message in the chat.
        files: URLs.
    """

    place: int
    role: Literal["user", "assistant"]
    text: str
    files: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for.

    Attributes:
        chat: what the front end calls the conversation.
        before: what was said up to the agent's last word.
        news: what was said after that.
        speaks: the last message of all is the person's: what the request is for, if it is for nothing else.
        again: what was said before is to be answered anew, as if the answer had not been.
        decisions: on calls that wait.
        results: of calls, as the front end has them; those of its own calls are to be taken in.
        named: the same of those whose run is known, by its id or the name of a message that it was told in.
        message: the front end's message that they stand in, and that is gone on with.
        calls: those that it has.
        brought: its tools, and what it says of itself.
    """

    chat: str
    before: Sequence[Word] = ()
    news: list[RunMessage] = field(default_factory=list)
    speaks: bool = True
    again: bool = False
    decisions: list[Decision] = field(default_factory=list)
    results: dict[str, Given] = field(default_factory=dict)
    named: dict[str, dict[str, Given]] = field(default_factory=dict)
    message: str = ""
    calls: frozenset[str] = frozenset()
    brought: dict[str, Any] | None = None

    @property
    def messages(self) -> list[RunMessage]:
        """All of the conversation, as far as it can be given to an agent that has not heard it."""
        return [*(said for one in self.before for said in _remembered(one)), *self.news]

    def unheard(self, words: Iterable[str], *, acts: bool = False) -> list[RunMessage]:
        """What of the news is new to the agent, of whose thread these are all words of people.

        A word has been heard where the thread has it more often than the front end has it before, unless it
        is what the request is for. What a front end keeps of the answers does not matter: some keep texts
        alone, some what was half said, some a message without a word.

        Args:
            acts: the request is for something else: an answer to what was asked, or a result.
        """
        doubtful = self.news[:-1] if self.speaks and not acts else self.news
        if not doubtful:
            return self.news
        before = (said for one in self.before if one.role == "user" for said in _remembered(one))
        sought = {one.content for one in doubtful}
        heard = Counter(one for one in words if one in sought)
        heard -= Counter(one.content for one in before)
        unheard = []
        for one in doubtful:
            if heard[one.content] > 0:
                heard[one.content] -= 1
            else:
                unheard.append(one)
        return [*unheard, *self.news[len(doubtful) :]]

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
    results = _outputs(_since_spoken_to(body.messages))
    named = {one.id: _outputs([one]) for one in body.messages if one.id.startswith(_OURS)}
    decisions = [] if again else _answers(meant)
    before: Sequence[Word] = ()
    news: list[RunMessage] = []
    if not decisions:
        before, news = _heard(_words(body), results or any(named.values()))
        if not again and meant.role == "user":
            decisions = _unsent(body.messages)
    return Asked(
        body.id,
        before,
        news,
        again=again,
        decisions=decisions,
        results=results,
        named=named,
        message=meant.id if meant.role == "assistant" else "",
        calls=frozenset(part.tool_call_id for part in meant.parts if part.tool_call_id),
        brought=_brought({name: _tool(one) for name, one in (body.tools or {}).items()}, [], None),
    )


def of_ag_ui(body: AgUiRun) -> Asked:
    """What a client of AG-UI asks for.

    Raises:
        InvalidRequest: there is nothing that an agent could be given.
    """
    brought = _brought(_by_name(body.tools or ()), body.context or [], body.state or None)
    named: dict[str, dict[str, Given]] = {}
    words = []
    for n, one in enumerate(body.messages):
        if one.role == "tool" and one.tool_call_id:
            run_id, call_id = call_named(one.tool_call_id)
            named.setdefault(run_id, {})[call_id] = _result(one)
        elif one.role == "user":
            words.append(Word(n, "user", *_content(one)))
        elif one.role == "assistant":
            # Its answer is one without text, too: a front end keeps calls alone of some.
            words.append(Word(n, "assistant", _content(one)[0]))
    decisions = [_resumed(n, one) for n, one in enumerate(body.resume or ())]
    before, news = _heard(words, named or decisions)
    return Asked(
        body.thread_id,
        before,
        news,
        speaks=bool(body.messages) and body.messages[-1].role == "user",
        decisions=decisions,
        named=named,
        brought=brought,
    )


def _words(body: UiChat) -> list[Word]:
    words = []
    for n, one in enumerate(body.messages):
        text = "".join(part.text or "" for part in one.parts if part.type == "text")
        files = [part.url or "" for part in one.parts if part.type == "file"]
        if one.role == "user":
            words.append(Word(n, "user", text, files))
        elif one.role == "assistant":
            words.append(Word(n, "assistant", text))
    return words


def _heard(words: Sequence[Word], more: object) -> tuple[Sequence[Word], list[RunMessage]]:
    """What was said up to the agent's last word, and what after that.

    Args:
        more: what is said beside.

    Raises:
        InvalidRequest: nothing is said, or what is said last is nothing that an agent can be given.
    """
    border = max((n for n, one in enumerate(words, 1) if one.role == "assistant"), default=0)
    news: list[RunMessage] = []
    for one in words[border:]:
        news += _message(one) if one is words[-1] else _remembered(one)
    if not news and not more:
        raise http.wrong_field("messages", "the last of them is to be the user's")
    return words[:border], news


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
    return [_answer(one) for one in _responded(last)]


def _unsent(messages: Sequence[UiMessage]) -> list[Decision]:
    """What was decided in the agent's last message where a word was said before it was sent.

    The message is sent with each word that follows, and others than us may have asked in it.
    """
    answers = [one for one in messages if one.role == "assistant"]
    found = []
    for one in _responded(answers[-1]) if answers else []:
        with suppress(InvalidRequest):  # no call of ours is named so
            found.append(replace(_answer(one), insists=False))
    return found


def _responded(message: UiMessage) -> list[UiApproval]:
    return [
        part.approval
        for part in message.parts
        if part.state == "approval-responded" and part.approval is not None
    ]


def _answer(given: UiApproval) -> Decision:
    return _decision(given.id, bool(given.approved), given.reason)


def _resumed(n: int, answer: AgUiResume) -> Decision:
    given = answer.payload
    said: dict[str, Any] = given if isinstance(given, dict) else {"approved": given}
    allowed, reason = said.get("approved"), said.get("reason")
    if answer.status == "cancelled":
        return _decision(answer.interrupt_id, False, None, insists=False)
    if not isinstance(allowed, bool):
        raise http.wrong_field(f"resume.{n}.payload", "approved is to be true or false")
    return _decision(answer.interrupt_id, allowed, str(reason) if reason else None)


def _decision(
    approval: str, allowed: bool, reason: str | None, *, insists: bool = True
) -> Decision:
    run_id, call_id = call_named(approval)
    if reason is not None:
        reason = cut(reason, _REASON - _FOR_THAT, _LEFT_OUT)
    try:
        what = RunApproval(call_id=call_id, decision="allow" if allowed else "deny", reason=reason)
    except ValidationError as exc:
        raise http.invalid(exc.errors(include_url=False, include_input=False)) from None
    return Decision(run_id, what, insists)


def _content(message: AgUiMessage) -> tuple[str, list[str]]:
    """The text, and the pictures as data URLs."""
    if isinstance(message.content, str):
        return message.content, []
    if not isinstance(message.content, list):
        return "", []
    parts = message.content
    text = "".join(part.text or "" for part in parts if part.type == "text")
    return text, [_file(part) for part in parts if part.type != "text"]


def _file(part: AgUiPart) -> str:
    """Where a file is; empty: it is not said."""
    if part.source is not None:
        one = part.source
        return f"data:;base64,{one.value}" if one.type == "data" else one.value
    return part.url or "" if part.data is None else f"data:;base64,{part.data}"


def _message(said: Word) -> list[RunMessage]:
    """A message that is said now; nothing, where nothing is said.

    Raises:
        InvalidRequest: it is nothing that an agent can be given.
    """
    where = f"messages.{said.place}"
    return _shaped(said, said.text, [_image(url, where) for url in said.files])


def _remembered(said: Word) -> list[RunMessage]:
    """A message of before, as an agent can be given it; nothing, where nothing was said."""
    text, images = _shown(
        said.text, said.files, MAX_MESSAGE_CHARACTERS - _FOR_THAT, most_pictures=_MOST_PICTURES
    )
    return _shaped(said, text, [one.model_dump() for one in images])


def _shaped(said: Word, text: str, images: Sequence[Mapping[str, str]]) -> list[RunMessage]:
    if not text and not images:
        return []
    content = {"role": said.role, "content": text or _PICTURE, "images": images}
    try:
        return [RunMessage.model_validate(content)]
    except ValidationError as exc:
        raise http.invalid(
            [
                {**error, "loc": ("messages", said.place, *error["loc"])}
                for error in exc.errors(include_url=False, include_input=False)
            ]
        ) from None


def _image(url: str, where: str) -> dict[str, str]:
    """A file that was sent along. What it is, its bytes say: front ends name its kind or do not."""
    data = _sent_along(url)
    if data is None:
        raise http.wrong_field(where, "a file is to be sent along as a data URL in base64")
    try:
        bytes_ = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise http.wrong_field(where, "a file's data is no base64") from None
    if (wrong := pictures.fault(bytes_)) is not None:
        raise http.wrong_field(where, f"a file {wrong}")
    return {"mediaType": str(pictures.kind_of(bytes_)), "data": data}


def _sent_along(url: str) -> str | None:
    """The base64 of a data URL; None: it is another."""
    head, _, data = url.partition(",")
    return data if head.startswith("data:") and head.endswith(";base64") else None


def _given(text: str, files: Sequence[str] = (), *, failed: bool = False) -> Given:
    """What came of a call, as a model can be shown it."""
    shown, images = _shown(text, files, MAX_CHARACTERS)
    return Given(shown, failed, tuple(images))


def _shown(
    text: str, files: Sequence[str], most: int, *, most_pictures: int | None = None
) -> tuple[str, list[ToolImage]]:
    """A text, cut where it has more characters, and its pictures; what cannot be shown is told in words."""
    words = [text] if text or not files else []
    images: list[ToolImage] = []
    room = _PICTURES_BYTES
    for url in files:
        found = _pictured(url, 0 if len(images) == most_pictures else room)
        if isinstance(found, ToolImage):
            room -= len(found.data)
            images.append(found)
        else:
            words.append(found)
    return cut("\n".join(words), most, _LEFT_OUT), images


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


def _tool(given: UiTool) -> FrontTool:
    """A tool of a chat: its schema is its ``parameters``, or what the AI SDK's own words make of one."""
    schema = given.parameters
    if schema is None and given.input_schema is not None:
        # `jsonSchema(…)` is an object with the schema in it.
        schema = given.input_schema.get("jsonSchema", given.input_schema)
    return FrontTool(description=given.description, parameters=schema)


def _by_name(tools: Sequence[AgUiTool]) -> dict[str, FrontTool]:
    """Tools by their names.

    Raises:
        InvalidRequest: two have the same.
    """
    found: dict[str, FrontTool] = {}
    for n, one in enumerate(tools):
        if one.name in found:
            raise http.wrong_field(f"tools.{n}.name", f"there is a tool {one.name} before it")
        found[one.name] = one
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
