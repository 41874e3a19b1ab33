"""What existing front ends send by themselves: `useChat` of the AI SDK, and clients of AG-UI.

Of their requests that is named which is read; fields that are not are theirs, and are passed over. They
send all of a chat each time: of what an old message has nothing is refused here, or the chat would be over.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints

from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.runs import MAX_MESSAGE_CHARACTERS

MAX_MESSAGES = 10_000
"""Of a chat: front ends send all of it each time."""

MAX_TOOLS = 64
"""That a front end may bring along."""
MAX_BROUGHT_BYTES = 256 * 1024
"""Of all that it brings along: tools, context and state."""

_Id = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
_Long = Annotated[str, StringConstraints(max_length=MAX_MESSAGE_CHARACTERS)]


ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FrontTool(Shape, defer_build=True):
    """A tool that a front end carries out itself; ``parameters`` is a JSON Schema of an object."""

    description: _Long = ""
    parameters: dict[str, Any] | None = None


class AgUiTool(FrontTool):
    """The same, as AG-UI has it."""

    name: ToolName


class UiTool(FrontTool):
    """The same, as a chat of the AI SDK has it, which calls its parameters ``inputSchema`` itself."""

    input_schema: dict[str, Any] | None = None


class AgUiContext(Shape, defer_build=True):
    """What an application says of itself beside the conversation."""

    description: _Long
    value: _Long


class Brought(Shape, defer_build=True):
    """What a front end brings along for a run: its tools by their names, and what it says of itself."""

    tools: dict[str, FrontTool] = Field(default_factory=dict)
    context: list[AgUiContext] = Field(default_factory=list)


class UiApproval(Shape, defer_build=True):
    """What a person has decided on a call, in a part of a message."""

    id: _Id
    approved: bool | None = None
    reason: str | None = None


class UiPart(Shape, defer_build=True):
    """One part of a message: text, a file, or how a call of a tool stands."""

    type: str = Field(max_length=256)
    text: str | None = None
    url: str | None = Field(None, description="of a file: a data URL")
    tool_call_id: str | None = Field(None, max_length=512)
    state: str | None = None
    output: Any = Field(None, description="what came of a call that the front end has carried out")
    error_text: str | None = None
    approval: UiApproval | None = None


class UiMessage(Shape, defer_build=True):
    """A message as `useChat` keeps it."""

    id: str = Field("", max_length=512)
    role: Literal["system", "user", "assistant"]
    parts: list[UiPart] = Field(max_length=10_000)


class UiChat(Shape, defer_build=True):
    """The body that `useChat` of the AI SDK sends: a chat, and all of its messages."""

    id: _Id = Field(description="of the chat: each is a thread")
    messages: list[UiMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = Field(
        None, max_length=512, description="of the message that is gone on with, or said otherwise"
    )
    tools: dict[ToolName, UiTool] | None = Field(
        None, max_length=MAX_TOOLS, description="those that the front end carries out, by name"
    )


class AgUiSource(Shape, defer_build=True):
    """Where the content of a part is."""

    type: str
    value: str


class AgUiPart(Shape, defer_build=True):
    """A part of what somebody said: text, or a file with its ``source``.

    Clients before 1.0 have files as ``binary``, with ``data`` or a ``url`` of their own.
    """

    type: str
    text: str | None = None
    source: AgUiSource | None = None
    data: str | None = None
    url: str | None = None


class AgUiMessage(Shape, defer_build=True):
    """A message as AG-UI has it: of a user, an assistant or a tool; of other roles nothing is read."""

    role: str
    content: str | list[AgUiPart] | dict[str, Any] | None = None
    tool_call_id: str | None = Field(None, max_length=512)
    error: str | None = None


class AgUiResume(Shape, defer_build=True):
    """The answer to an interrupt: ``payload`` says ``approved``, and perhaps a ``reason``."""

    interrupt_id: _Id
    status: Literal["resolved", "cancelled"]
    payload: JsonValue = None


class AgUiRun(Shape, defer_build=True):
    """The body that clients of AG-UI send (`RunAgentInput`)."""

    thread_id: _Id = Field(description="the front end's: each is a thread")
    run_id: _Id = Field(description="what the front end calls this run")
    messages: list[AgUiMessage] = Field(max_length=MAX_MESSAGES)
    resume: list[AgUiResume] | None = Field(None, max_length=128)
    tools: list[AgUiTool] | None = Field(
        None, max_length=MAX_TOOLS, description="those that the front end carries out"
    )
    context: list[AgUiContext] | None = Field(None, max_length=128)
    state: JsonValue = Field(None, description="shown to the model; nothing changes it")
