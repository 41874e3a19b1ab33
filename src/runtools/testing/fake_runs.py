"""The api's side of the worker port in memory: leases, logs, keys, repeats, pokes, waits and deltas.

What a worker says is answered as the port says, so the loop can be tested without an api, and workers be
killed at will. `FakeLink` is a connection inside the process, `serving` the same over a WebSocket.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import websockets
from websockets.asyncio.server import ServerConnection, serve

from runtools.errors import Conflict, NotFound, RunToolsError, Unauthenticated
from runtools.platform.agents.link import LinkLost
from runtools.platform.core.ids import new_id
from runtools.platform.core.ports.worker import (
    EARLIER,
    MAX_FRAME_BYTES,
    PATH,
    Append,
    Assignment,
    Delta,
    Earlier,
    Logged,
    ModelAccess,
    NewEvent,
    News,
    Offer,
    Placed,
    Poke,
    Value,
)
from runtools.sdk.shapes.base import Shape
from runtools.sdk.shapes.definitions import AgentDefinition
from runtools.sdk.shapes.frontends import Brought
from runtools.sdk.shapes.runs import DeltaType, Run, RunStatus, RunUsage

_LOOK_SECONDS = 0.005
TOKEN = "a-worker"  # what the fake lets in


def _letters() -> str:
    return new_id("opn").removeprefix("opn_")


@dataclass
class FakeRun:
    """One run as the api keeps it."""

    id: str
    agent: AgentDefinition
    model: ModelAccess
    thread_id: str
    sandbox_id: str | None
    token: str
    limits: dict[str, float]
    config: dict[str, Any]
    output_schema: dict[str, Any] | None
    earlier: list[Logged]
    brought: Brought = field(default_factory=Brought)
    lease: int = 1
    status: RunStatus = "queued"
    cancel: bool = False
    started_at: datetime | None = None
    taken_at: float = 0.0
    spent: float = 0.0
    driven_to: int = 0
    replaced: bool = False
    holder: object | None = None
    log: list[Logged] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    appends: int = 0
    left: list[str] = field(default_factory=list)

    def types(self) -> list[str]:
        """The types of its events, in order."""
        return [event.type for event in self.log]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of one type."""
        return [event.data for event in self.log if event.type == kind]

    @property
    def done(self) -> dict[str, Any]:
        """How it ended."""
        [done] = self.of("done")
        return done


class FakeRuns:
    """All runs, and the workers that are connected."""

    def __init__(self) -> None:
        self.runs: dict[str, FakeRun] = {}
        self.secrets: dict[str, str] = {}
        self.piece = 1000  # how many events are handed over at once
        self.place: Callable[[FakeRun], Any] | None = None
        self._ears: dict[object, Callable[[Offer | Poke], None]] = {}

    # --- what people do ---

    def make(
        self,
        message: str,
        *,
        agent: Mapping[str, Any] | None = None,
        model: ModelAccess | None = None,
        sandbox_id: str | None = None,
        token: str = "token",
        thread_id: str | None = None,
        earlier: Sequence[Logged] = (),
        limits: Mapping[str, float] | None = None,
        config: Mapping[str, Any] | None = None,
        output_schema: dict[str, Any] | None = None,
        images: Sequence[Mapping[str, Any]] = (),
        brought: Mapping[str, Any] | None = None,
    ) -> FakeRun:
        """A run that is queued."""
        says = {"slug": "tester", "name": "Tester", "model": "demo", **(agent or {})}
        run = FakeRun(
            f"run_{_letters()}",
            AgentDefinition.model_validate(says),
            model or ModelAccess(provider="demo", api_id="demo"),
            thread_id or f"thr_{_letters()}",
            sandbox_id,
            token,
            dict(limits or {}),
            dict(config or {}),
            output_schema,
            [one for one in earlier if one.type in EARLIER],
            Brought.model_validate(brought or {}),
        )
        started = {
            "agentSlug": "tester",
            "agentVersion": 1,
            "model": "demo",
            "threadId": run.thread_id,
        }
        self._put(run, NewEvent(key="run-started", type="run-started", data=started))
        said = {"role": "user", "text": message, "turn": 0, "images": [dict(one) for one in images]}
        self._put(run, NewEvent(key="in:0", type="message", data=said))
        self.runs[run.id] = run
        self._offer(run)
        return run

    async def say(self, run: FakeRun, text: str, steering: str = "queue") -> None:
        """Say something to a run under way."""
        said = {"role": "user", "text": text, "turn": 0, "steering": steering}
        await self._by_people(run, NewEvent(key=f"say:{len(run.log)}", type="message", data=said))

    async def decide(self, run: FakeRun, call_id: str, decision: str, **more: Any) -> None:
        """Decide on a call that waits."""
        data = {"callId": call_id, "decision": decision, "actor": "test", **more}
        await self._by_people(
            run, NewEvent(key=f"decide:{call_id}", type="approval-resolved", data=data)
        )

    async def give(self, run: FakeRun, call_id: str, name: str, output: str) -> None:
        """The front end says what came of a call."""
        data = {"callId": call_id, "name": name, "output": output, "durationMs": 0, "turn": 1}
        await self._by_people(run, NewEvent(key=f"give:{call_id}", type="tool-result", data=data))

    async def cancel(self, run: FakeRun) -> None:
        """Want its end."""
        run.cancel = True
        self._wake(run)

    async def until(self, holds: Callable[[], Any], seconds: float = 60.0) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(_LOOK_SECONDS)

    async def ended(self, run: FakeRun, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for the end of a run."""
        await self.until(lambda: run.status not in ("queued", "running", "waiting"), seconds)
        return run.done

    # --- what workers do ---

    def join(self, who: object, ear: Callable[[Offer | Poke], None]) -> None:
        """A worker is there: it is offered all that is queued."""
        self._ears[who] = ear
        for run in self.runs.values():
            if run.status == "queued":
                ear(Offer(run_id=run.id, lease=run.lease))

    def leave(self, who: object) -> None:
        """A worker is gone: what it held is offered to the others under a new lease."""
        self._ears.pop(who, None)
        for run in self.runs.values():
            self._given_back(run, who)

    async def answer(self, who: object, frame: Mapping[str, Any]) -> Shape | None:
        """What a frame is answered with."""
        call = frame["call"]
        if call in ("hello", "here"):
            return None
        run = self.runs.get(frame["runId"])
        if run is None:
            raise NotFound("no such run")
        if call == "delta":
            if run.lease == frame["lease"]:
                run.deltas.append(Delta.model_validate(frame))
            return None
        if run.lease != frame["lease"]:
            raise Conflict("another lease is the latest")
        match call:
            case "take":
                return self._take(run, who)
            case "append":
                return await self._append(run, Append.model_validate(frame))
            case "read" | "earlier":
                return self._said(run, frame)
            case "place":
                return await self._place(run)
            case "release":
                self._given_back(run, who)
                return None
            case "secret":
                return self._secret(frame["name"])
        raise NotFound(f"no call {call}")

    def _given_back(self, run: FakeRun, who: object) -> None:
        if run.holder is who:
            self._release(run)

    def _release(self, run: FakeRun) -> None:
        run.holder = None
        run.spent += monotonic() - run.taken_at
        if run.status == "running":
            run.status, run.driven_to = "queued", len(run.log)
            run.lease += 1
            self._offer(run)

    def _take(self, run: FakeRun, who: object) -> Assignment:
        if run.status != "queued":
            raise Conflict(f"the run is {run.status}")
        run.status, run.holder, run.taken_at = "running", who, monotonic()
        run.started_at = run.started_at or datetime.now(UTC)
        return Assignment(
            run=self._shape(run),
            agent=run.agent,
            model=run.model,
            output_schema=run.output_schema,
            limits=run.limits,
            spent_seconds=run.spent,
            driven_to=run.driven_to,
            config=run.config,
            earlier=run.earlier[: self.piece],
            log=run.log[: self.piece],
            earlier_goes_on=len(run.earlier) > self.piece,
            log_goes_on=len(run.log) > self.piece,
            brought=run.brought,
            token=run.token,
        )

    def _said(self, run: FakeRun, frame: Mapping[str, Any]) -> Shape:
        if frame["call"] == "read":
            return self._read(run, frame["after"])
        return self._earlier(run, frame["afterRun"], frame["after"])

    def _read(self, run: FakeRun, after: int) -> News:
        rest = run.log[after:]
        more = len(rest) > self.piece
        return News(events=rest[: self.piece], cancel=run.cancel, more=more)

    def _earlier(self, run: FakeRun, after_run: str, after: int) -> Earlier:
        known = [(one.run_id, one.seq) for one in run.earlier].index((after_run, after)) + 1
        rest = run.earlier[known:]
        return Earlier(events=rest[: self.piece], more=len(rest) > self.piece)

    async def _append(self, run: FakeRun, asked: Append) -> News:
        if run.status != "running":
            raise Conflict(f"the run is {run.status}")
        run.left += asked.left
        if asked.seen is not None and (run.cancel or len(run.log) > asked.seen):
            return self._read(run, asked.seen)
        stands = [self._put(run, event) for event in asked.events]
        run.appends += 1
        if any(event.type == "done" for event in stands):
            run.status = run.done["status"]
            run.holder = None
        elif asked.wait:
            run.status, run.holder, run.driven_to = "waiting", None, 0
            run.spent += monotonic() - run.taken_at
        return News(events=stands, cancel=run.cancel)

    async def _place(self, run: FakeRun) -> Placed:
        if run.sandbox_id is None:
            assert self.place is not None, "no sandbox was given, and none can be made"
            run.sandbox_id = await self.place(run)
        assert run.sandbox_id is not None
        return Placed(sandbox_id=run.sandbox_id, replaced=run.replaced)

    def _secret(self, name: str) -> Value:
        if name not in self.secrets:
            raise NotFound(f"there is no secret {name}")
        return Value(value=self.secrets[name])

    def _put(self, run: FakeRun, event: NewEvent) -> Logged:
        for there in run.log:
            if there.key == event.key:
                return there
        assert not any(there.type == "done" for there in run.log), f"{event.type} after done"
        logged = Logged(
            type=event.type,
            seq=len(run.log) + 1,
            run_id=run.id,
            at=datetime.now(UTC),
            data=json.loads(json.dumps(event.data)),
            key=event.key,
            wire=json.loads(json.dumps(event.wire)),
        )
        run.log.append(logged)
        return logged

    async def _by_people(self, run: FakeRun, event: NewEvent) -> None:
        self._put(run, event)
        self._wake(run)

    def _wake(self, run: FakeRun) -> None:
        if run.status == "waiting":
            run.status = "queued"
            run.lease += 1
            self._offer(run)
        elif run.holder is not None and run.holder in self._ears:
            self._ears[run.holder](Poke(run_id=run.id))

    def _offer(self, run: FakeRun) -> None:
        for ear in self._ears.values():
            ear(Offer(run_id=run.id, lease=run.lease))

    def _shape(self, run: FakeRun) -> Run:
        return Run(
            id=run.id,
            status=run.status,
            agent_slug=run.agent.slug,
            agent_version=1,
            model=run.agent.model,
            thread_id=run.thread_id,
            sandbox_id=run.sandbox_id,
            project_id="prj_test",
            created_at=datetime.now(UTC),
            started_at=run.started_at,
            ended_at=None,
            iterations=0,
            last_seq=len(run.log),
            usage=RunUsage(),
            output=None,
            cancel_requested=run.cancel,
        )


class FakeLink:
    """A worker's connection inside the process. ``after``: called after each append that was written."""

    def __init__(self, runs: FakeRuns, after: Callable[[FakeRun], None] | None = None) -> None:
        self._runs = runs
        self._after = after
        self._gone = False

    def join(self, ear: Callable[[Offer | Poke], None]) -> None:
        """Be there."""
        self._runs.join(self, ear)

    def cut(self) -> None:
        """The connection breaks."""
        if not self._gone:
            self._gone = True
            self._runs.leave(self)

    async def take(self, run_id: str, lease: int) -> Assignment:
        """Take a run."""
        given: Assignment = await self._ask(call="take", runId=run_id, lease=lease)
        return given

    async def append(
        self,
        run_id: str,
        lease: int,
        events: Sequence[NewEvent],
        *,
        seen: int | None = None,
        wait: bool = False,
        left: Sequence[str] = (),
    ) -> News:
        """Append events."""
        said = [event.model_dump(mode="json") for event in events]
        more = {"events": said, "seen": seen, "wait": wait, "left": list(left)}
        news: News = await self._ask(call="append", runId=run_id, lease=lease, **more)
        if self._after is not None:
            self._after(self._runs.runs[run_id])
            self._check()
        return news

    async def read(self, run_id: str, lease: int, after: int) -> News:
        """Read on."""
        news: News = await self._ask(call="read", runId=run_id, lease=lease, after=after)
        return news

    async def earlier(self, run_id: str, lease: int, after_run: str, after: int) -> Earlier:
        """What was said before."""
        earlier: Earlier = await self._ask(
            call="earlier", runId=run_id, lease=lease, afterRun=after_run, after=after
        )
        return earlier

    async def place(self, run_id: str, lease: int) -> Placed:
        """The sandbox."""
        placed: Placed = await self._ask(call="place", runId=run_id, lease=lease)
        return placed

    async def secret(self, run_id: str, lease: int, name: str, server: str | None = None) -> str:
        """A secret."""
        value: Value = await self._ask(
            call="secret", runId=run_id, lease=lease, name=name, server=server
        )
        return value.value

    async def release(self, run_id: str, lease: int, *, ending: bool = False) -> None:
        """Give a run back."""
        await self._ask(call="release", runId=run_id, lease=lease, ending=ending)

    def delta(self, run_id: str, lease: int, kind: DeltaType, data: Mapping[str, Any]) -> None:
        """A live piece."""
        run = self._runs.runs[run_id]
        if not self._gone and run.lease == lease:
            run.deltas.append(Delta(run_id=run_id, lease=lease, type=kind, data=dict(data)))

    async def _ask(self, **frame: Any) -> Any:
        self._check()
        try:
            return await self._runs.answer(self, frame)
        except Conflict as error:
            raise LinkLost(error.message) from error

    def _check(self) -> None:
        if self._gone:
            raise LinkLost("the connection is cut")


@asynccontextmanager
async def serving(runs: FakeRuns) -> AsyncIterator[str]:
    """The same for workers that are processes; gives the URL."""
    async with serve(
        lambda socket: _serve(runs, socket),
        "127.0.0.1",
        0,
        max_size=MAX_FRAME_BYTES,
        compression=None,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"


async def _serve(runs: FakeRuns, socket: ServerConnection) -> None:
    assert socket.request is not None
    good = socket.request.headers.get("Authorization") == f"Bearer {TOKEN}"
    if socket.request.path != PATH or not good:
        await socket.close(4401, Unauthenticated("no worker").message)
        return
    ear: asyncio.Queue[str] = asyncio.Queue()
    speaker = asyncio.create_task(_speak(socket, ear))
    working: set[asyncio.Task[None]] = set()
    try:
        async for text in socket:
            frame = json.loads(text)
            if frame["call"] == "hello":
                ear.put_nowait(json.dumps({"id": frame["id"], "ok": None}))
                runs.join(socket, lambda word: ear.put_nowait(word.model_dump_json()))
                continue
            task = asyncio.create_task(_reply(runs, socket, frame, ear))
            working.add(task)
            task.add_done_callback(working.discard)
    except websockets.ConnectionClosed:
        pass
    finally:
        runs.leave(socket)
        speaker.cancel()
        with suppress(asyncio.CancelledError):
            await speaker


async def _speak(socket: ServerConnection, ear: asyncio.Queue[str]) -> None:
    with suppress(websockets.ConnectionClosed):
        while True:
            await socket.send(await ear.get())


async def _reply(
    runs: FakeRuns, socket: ServerConnection, frame: dict[str, Any], ear: asyncio.Queue[str]
) -> None:
    answer: dict[str, Any] = {"id": frame.get("id")}
    try:
        said = await runs.answer(socket, frame)
        answer["ok"] = None if said is None else said.model_dump(mode="json")
    except RunToolsError as error:
        answer["error"] = error.to_wire()
    if frame["call"] not in ("delta", "here"):
        ear.put_nowait(json.dumps(answer))
