"""The worker port: how the api and those who drive runs meet, over one WebSocket.

The run's log is the one truth, and it is the api's. A worker is offered a run, takes it under a lease,
and from then on appends to its log under that lease; another lease, given out when the worker is gone or
the run was woken, makes every later word of the old one void. So a run is its own queue (decision 0021).

Frames are JSON texts of at most `MAX_FRAME_BYTES`. The worker's have an ``id`` beside what stands below and
are answered with an `Answer` of it, but for `Delta`; what the api says by itself has none. A lease that is
not the latest any more is answered with `Conflict`.

Who writes what: the api appends ``run-started`` and the messages that a run begins with when it makes the
run, then what people say (messages with ``steering``, ``approval-resolved``) as they say it, and pokes the
worker. All else is the worker's. A run that waits is woken, that is offered anew, by either of the two and
by a cancel; one that is cancelled is offered too, for its worker to end what is under way and say ``done``.

A worker that says nothing for `SILENT_SECONDS` counts as one whose connection broke, whatever that looks
like: one that stands still, or whose network is gone, does not say so. So it says `Here` every second.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints

from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.events import ErrorBody
from runtools.sdk.shapes.frontends import Brought
from runtools.sdk.shapes.runs import DeltaType, DurableType, Run, RunEvent

PATH = "/parts/worker"
MAX_FRAME_BYTES = 64 * 1024 * 1024
GRACE_SECONDS = 5.0
"""How long a worker whose connection broke may take to come back, before others are offered its runs."""
BEAT_SECONDS = 1.0
SILENT_SECONDS = 2.5
"""How long a worker may say nothing before its grace begins."""
OWN_KEYS = "api:"
"""How the keys of events begin that the api appends, and those of workers do not."""
EARLIER = ("message", "tool-call", "tool-result", "approval-resolved", "usage", "compaction")
"""What a worker is given of the runs before: what was said and done, and how large that has become."""

ProcessId = Annotated[str, StringConstraints(min_length=1, max_length=128)]

# --- what a worker says ---


class Hello(Shape):
    """The first frame: who it is and how many runs it can drive at once.

    It drives nothing: what the api believes a worker of that name to drive is offered anew at once, for
    what was done since its connection broke could not be written down.

    Attributes:
        drove: the runs that it drove until its last connection broke, each with its lease. It has outlived
            them, so they are no suspects: another process of that name knows nothing of them.
    """

    call: Literal["hello"] = "hello"
    worker_id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")
    slots: int = Field(ge=0, le=10_000)
    drove: dict[str, int] = Field(default_factory=dict, max_length=10_000)


class Take(Shape):
    """Take a run that was offered; `Conflict` where the lease is not the latest any more."""

    call: Literal["take"] = "take"
    run_id: str
    lease: int


class NewEvent(Shape):
    """An event to append. ``key`` is made of turn and call: a repeat changes nothing and is answered
    with what stands there.

    What ``data`` says of sums (``total`` of ``usage``; ``usage`` and ``iterations`` of ``done``) is
    replaced by what the api has added up.

    Attributes:
        wire: what no reader sees: the model's answer in the form that it must be given back in.
    """

    key: str = Field(min_length=1, max_length=128)
    type: DurableType
    data: dict[str, Any]
    wire: JsonValue = Field(None, repr=False)


class Append(Shape):
    """Append events in one transaction; answered with `News` of what stands under their keys. ``done`` ends
    the run; ``wait`` lets go of it until it is woken.

    Attributes:
        seen: where the log has something of others after this number, or a cancel is wanted, nothing is
            appended and nobody waits: `News` of all after it is the answer. So no message is passed over by
            an end, and no decision by a wait. None: append in any case.
        left: processes of the run that the worker is done with, and could not end: from now on they are the
            api's to end, whatever is appended.
    """

    call: Literal["append"] = "append"
    run_id: str
    lease: int
    events: list[NewEvent]
    seen: int | None = None
    wait: bool = False
    left: list[ProcessId] = Field(default_factory=list, max_length=1000)


class Read(Shape):
    """The log after a number, and whether to cancel: what others have appended meanwhile.

    Answered with `News`; a log that is long comes in pieces.
    """

    call: Literal["read"] = "read"
    run_id: str
    lease: int
    after: int


class ReadEarlier(Shape):
    """What the thread's runs before this one said, after an event of theirs; answered with `Earlier`."""

    call: Literal["earlier"] = "earlier"
    run_id: str
    lease: int
    after_run: str
    after: int


class Place(Shape):
    """The sandbox of the run, made where there is none yet."""

    call: Literal["place"] = "place"
    run_id: str
    lease: int


class Secret(Shape):
    """A secret that this run's agent may use; the api checks that it is one of those.

    ``server`` is the agent's MCP server that it is sent to; None: it is a key of the platform's own tools.
    """

    call: Literal["secret"] = "secret"
    run_id: str
    lease: int
    name: str
    server: str | None = None


class Release(Shape):
    """Give back a run that is not at its end and that this worker does not go on with: it is offered anew.

    Answered with None, also where there is nothing to give back any more.

    Attributes:
        ending: whether it is for the worker's own end. Else the run may be to blame: one that is given back
            again and again, and comes no further, ends as one does that costs its workers their lives.
    """

    call: Literal["release"] = "release"
    run_id: str
    lease: int
    ending: bool = False


class Here(Shape):
    """The worker is there, said every `BEAT_SECONDS`; not answered."""

    call: Literal["here"] = "here"


class Delta(Shape):
    """A live piece for whoever is reading; not answered and not kept."""

    call: Literal["delta"] = "delta"
    run_id: str
    lease: int
    type: DeltaType
    data: dict[str, Any]


# --- what it is answered ---


class Answer(Shape):
    """The frame that answers the one of the same ``id``: with one of the shapes below, or with an error.

    `Hello` and `Release` are answered with None; `Secret` with a `Value`.
    """

    id: int
    ok: JsonValue = None
    error: ErrorBody | None = None


class Logged(RunEvent):
    """A durable event with what no reader sees."""

    key: str
    wire: JsonValue = Field(None, repr=False)


class ModelAccess(Shape):
    """How to reach the run's model.

    Attributes:
        provider: of the catalogue, or the slug of an endpoint of the org, which has a ``base_url`` and
        speaks
            OpenAI's protocol.
        context_window: tokens that it takes in; None: nobody knows.
        key_name: the secret that holds its key; None: it needs none.
        api_key: None where none is needed, or the org has none.
    """

    provider: str
    api_id: str
    base_url: str | None = None
    context_window: int | None = None
    key_name: str | None = None
    api_key: str | None = Field(None, repr=False)


class Assignment(Shape):
    """All that is needed to drive a run from where its log ends.

    Attributes:
        output_schema: of an object that the run must end with.
        limits: the least that agent, run and org allow, of `Budget`'s fields by their names here.
        spent_seconds: how long it was driven before, as ``max_seconds`` counts it.
        driven_to: up to where the log went when an earlier lease ended that may have left something under
            way; 0: nothing was, for there was none, or the last one ended with a wait.
        config: what of `RunConfig` this run sets, likewise.
        earlier: the logs of the thread's runs before this one, oldest first, from the last compaction on.
        has_desktop: whether the sandbox that it works in, or will, has a screen.
        log: this run's, with all that others have appended.
        earlier_goes_on, log_goes_on: whether that is the first piece of it, and the rest is to be read.
        brought: what its front end has brought along: it carries out calls of those tools itself.
        token: what the worker calls the API with, in this run's name: its sandbox and nothing else.
            Under each lease it acts as the same caller, so that a repeat is known as one.
    """

    run: Run
    agent: AgentDefinition
    model: ModelAccess
    output_schema: dict[str, JsonValue] | None
    limits: dict[str, float]
    spent_seconds: float = 0.0
    driven_to: int = 0
    config: dict[str, JsonValue]
    earlier: list[Logged]
    log: list[Logged]
    earlier_goes_on: bool = False
    log_goes_on: bool = False
    has_desktop: bool = False
    brought: Brought = Brought()
    token: str = Field(repr=False)


class News(Shape):
    """What stands in the log after a number, and whether the run is to be cancelled.

    Attributes:
        more: whether the log goes on after these, and is to be read on.
        exceeded: in words for ``limit``, which budget of the org is used up: time to end with
        ``limit_reached``.
    """

    events: list[Logged]
    cancel: bool
    more: bool = False
    exceeded: str | None = None


class Earlier(Shape):
    """A piece of what was said before; ``more``: it goes on."""

    events: list[Logged]
    more: bool


class Placed(Shape):
    """Where the run works.

    Attributes:
        replaced: the thread's sandbox was found gone, this one was made in its place, and no result of a
            tool has told the model so yet.
    """

    sandbox_id: str
    replaced: bool = False


class Value(Shape):
    """What a secret holds."""

    value: str = Field(repr=False)


# --- what a worker is told ---


class Offer(Shape):
    """A run that nobody drives."""

    told: Literal["offer"] = "offer"
    run_id: str
    lease: int


class Poke(Shape):
    """Something was appended to the log of a run that it drives, or it is to be cancelled: read."""

    told: Literal["poke"] = "poke"
    run_id: str
