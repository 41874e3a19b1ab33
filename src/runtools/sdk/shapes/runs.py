"""Runs of agents: what is asked for, how a run stands, and the events of its stream.

An event is one JSON object ``{"type", "seq", "runId", "at", "data"}``. Durable ones have a gapless ``seq``
from 1 on and are kept; deltas have none, are live only, and name the attempt that they belong to: who sees
a later attempt of the same turn drops what came of the earlier one. A run's stream ends with one ``done``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from runtools.sdk.pictures import MediaType
from runtools.sdk.shapes.base import Request, Shape
from runtools.sdk.shapes.definitions import Label, Thinking
from runtools.sdk.shapes.sandboxes import Name, TagText

RunStatus = Literal[
    "queued", "running", "waiting", "completed", "failed", "cancelled", "limit_reached"
]
"""``waiting``: for an approval, or its front end; nobody works on it meanwhile."""
WaitsFor = Literal["approval", "result", "turn", "room", "worker"]
"""``result``: of a call that its front end carries out; ``turn``: of its thread or sandbox; ``room``: at a
worker; ``worker``: none is connected."""
EndStatus = Literal["completed", "failed", "cancelled", "limit_reached"]

DurableType = Literal[
    "run-started",
    "message",
    "tool-call",
    "tool-result",
    "approval-requested",
    "approval-resolved",
    "usage",
    "compaction",
    "error",
    "done",
]
DeltaType = Literal["text-delta", "thinking", "tool-output-delta"]

Decision = Literal["allow", "deny"]
Steering = Literal["queue", "interrupt"]
"""Whether a message waits for the end of the turn under way, or breaks it off."""

MAX_MESSAGE_CHARACTERS = 1_000_000
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_MESSAGE_CHARACTERS)]
RunId = Annotated[str, StringConstraints(pattern=r"^run_[a-z0-9]{20}$")]
ThreadId = Annotated[str, StringConstraints(pattern=r"^thr_[a-z0-9]{20}$")]


class RunImage(Request, defer_build=True):
    """A picture for a model that can see."""

    media_type: MediaType
    data: str = Field(max_length=5_000_000, description="base64")


class RunMessage(Request, defer_build=True):
    """One message of a conversation that the run begins with."""

    role: Literal["user", "assistant"]
    content: Text
    images: list[RunImage] = Field(default_factory=list, max_length=16)


class Budget(Request, defer_build=True):
    """What a run may spend before it stops with ``limit_reached``; it can then be continued."""

    max_iterations: int | None = Field(None, ge=1, le=100)
    max_total_tokens: int | None = Field(None, ge=1)
    max_cost_usd: float | None = Field(None, gt=0, allow_inf_nan=False)
    max_seconds: int | None = Field(None, ge=1, le=604_800)


class RunConfig(Budget):
    """What this run does otherwise than its agent's definition says."""

    max_tokens: int | None = Field(None, ge=1, le=128_000)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    thinking: Thinking | None = Field(None, description="true, false or how much")


class RunRequest(Request, defer_build=True):
    """Give an agent work: one message, or a conversation that ends with the user's."""

    agent_slug: Name
    project: str | None = Field(
        None,
        max_length=64,
        pattern=r"^[^\x00]*$",
        description="id or name, where several projects have the slug",
    )
    message: Text | None = None
    images: list[RunImage] = Field(default_factory=list, max_length=16)
    messages: list[RunMessage] | None = Field(None, min_length=1, max_length=1000)
    stream: bool = False
    thread_id: ThreadId | None = Field(None, description="default: a new thread")
    sandbox_id: str | None = Field(
        None, max_length=64, description="id or name; work in this one, whatever the agent says"
    )
    config: RunConfig = Field(default_factory=RunConfig)
    output_schema: dict[str, JsonValue] | None = Field(
        None, description="JSON Schema of an object that the run must end with"
    )
    metadata: dict[TagText, TagText] = Field(default_factory=dict, max_length=64)

    @model_validator(mode="after")
    def _one_of_both(self) -> RunRequest:
        if (self.message is None) == (self.messages is None):
            raise ValueError("give either message or messages")
        if self.messages is not None and self.messages[-1].role != "user":
            raise ValueError("the last of messages is the user's")
        return self


class RunUsage(Shape, defer_build=True):
    """What models were asked, added up. ``cost_usd`` is null where a price is not known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0
    cost_usd: str | None = Field("0", description="decimal")


class RunError(Shape, defer_build=True):
    """Why a run failed or what went wrong in it."""

    code: str
    message: str
    hint: str | None = None


class Run(Shape, defer_build=True):
    """How a run stands."""

    id: str
    status: RunStatus
    agent_slug: str
    agent_version: int
    model: str
    waits_for: WaitsFor | None = Field(
        None,
        description="what one that is queued or waiting waits for; `worker`: none is connected",
    )
    thread_id: str
    sandbox_id: str | None
    project_id: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    iterations: int
    last_seq: int
    usage: RunUsage
    output: str | None = Field(None, description="the last text, once it has ended")
    structured: JsonValue = Field(None, description="what was asked for by `outputSchema`")
    error: RunError | None = None
    continues: str | None = Field(None, description="the run that reached a limit before this one")
    cancel_requested: bool = False
    metadata: dict[str, str] = Field(default_factory=dict)


class RunEvent(Shape, defer_build=True):
    """One event; ``data`` is one of the payloads below, by ``type``."""

    type: DurableType | DeltaType
    seq: int | None = None
    run_id: str
    at: datetime
    data: dict[str, Any]


class Started(Shape, defer_build=True):
    """``run-started``: once, before everything else."""

    agent_slug: str
    agent_version: int
    model: str
    thread_id: str


class Message(Shape, defer_build=True):
    """``message``: what a person said, or all that the model said in a turn."""

    role: Literal["user", "assistant"]
    text: str
    thinking: str | None = None
    images: list[RunImage] = Field(default_factory=list)
    turn: int = Field(description="0 for what was said before the first answer")
    steering: Steering | None = None


class Delta(Shape, defer_build=True):
    """``text-delta`` and ``thinking``: a piece of what the model is saying.

    ``offset`` is how many characters of the same kind came before it in this attempt: who has heard less
    came in the middle, or has lost a piece, and waits for the ``message``.
    """

    text: str
    turn: int
    attempt: int
    offset: int | None = None


class ToolCall(Shape, defer_build=True):
    """``tool-call``: what the model wants done."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    turn: int
    front: bool = Field(
        False, description="the front end that brought the tool along carries it out"
    )


class ToolOutput(Shape, defer_build=True):
    """``tool-output-delta``: a piece of what a tool under way writes."""

    call_id: str
    text: str
    attempt: int


class ToolImage(Shape, defer_build=True):
    """A picture that a tool gave back."""

    media_type: str
    data: str


class ToolResult(Shape, defer_build=True):
    """``tool-result``: what came of a call, as the model is told."""

    call_id: str
    name: str
    output: str
    failed: bool = False
    images: list[ToolImage] = Field(default_factory=list)
    duration_ms: int
    turn: int


class ApprovalRequested(Shape, defer_build=True):
    """``approval-requested``: a call waits for a person."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    turn: int


class ApprovalResolved(Shape, defer_build=True):
    """``approval-resolved``: what a person decided; ``arguments`` where they were changed."""

    call_id: str
    decision: Decision
    arguments: dict[str, Any] | None = None
    reason: str | None = None
    actor: str


class TurnUsage(RunUsage):
    """``usage``: of one answer of the model; ``total`` is the run's up to there."""

    turn: int
    total: RunUsage


class Compaction(Shape, defer_build=True):
    """``compaction``: the conversation before this was too long and goes on from a summary."""

    turn: int
    tokens_before: int
    summary: str


class Trouble(RunError):
    """``error``: something went wrong; ``retrying``: it is tried again after so many seconds."""

    turn: int
    retrying: float | None = None


class Done(Shape, defer_build=True):
    """``done``: the end, once."""

    status: EndStatus
    output: str | None
    structured: JsonValue = None
    error: RunError | None = None
    limit: str | None = Field(None, description="which one was reached, and what would lift it")
    usage: RunUsage
    iterations: int


PAYLOADS: dict[str, type[Shape]] = {
    "run-started": Started,
    "message": Message,
    "text-delta": Delta,
    "thinking": Delta,
    "tool-call": ToolCall,
    "tool-output-delta": ToolOutput,
    "tool-result": ToolResult,
    "approval-requested": ApprovalRequested,
    "approval-resolved": ApprovalResolved,
    "usage": TurnUsage,
    "compaction": Compaction,
    "error": Trouble,
    "done": Done,
}


class RunSteer(Request, defer_build=True):
    """Say something to a run that is under way."""

    message: Text
    images: list[RunImage] = Field(default_factory=list, max_length=16)
    mode: Steering = "queue"


class RunApproval(Request, defer_build=True):
    """Decide on a call that waits."""

    call_id: str = Field(min_length=1, max_length=128)
    decision: Decision
    arguments: dict[str, JsonValue] | None = Field(None, description="instead of the model's")
    reason: str | None = Field(None, max_length=4096, description="told to the model")

    @model_validator(mode="after")
    def _arguments_of_allowed(self) -> RunApproval:
        if self.decision == "deny" and self.arguments is not None:
            raise ValueError("a call that is denied has no arguments")
        return self


class RunContinue(Request, defer_build=True):
    """Go on from where a limit stopped a run, with a new budget."""

    message: Text | None = None
    config: RunConfig = Field(default_factory=RunConfig)


class Thread(Shape, defer_build=True):
    """A conversation that is kept across runs."""

    id: str
    agent_slug: str
    project_id: str
    title: Label | None
    sandbox_id: str | None
    runs: int
    created_at: datetime
    updated_at: datetime
