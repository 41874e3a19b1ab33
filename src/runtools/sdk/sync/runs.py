# Generated from sdk/runs.py by scripts/generate_sync.py: edit that, then run it.
"""Runs of agents, the handle of one, and the threads that they belong to."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from time import monotonic
from typing import Any

from pydantic import BaseModel

from runtools.errors import DeadlineExceeded, RunFailed
from runtools.sdk import wire
from runtools.sdk.concurrency import sync_sleep
from runtools.sdk.shapes.runs import (
    PAYLOADS,
    Decision,
    Run,
    RunConfig,
    RunEvent,
    RunImage,
    RunMessage,
    RunStatus,
    Steering,
    Thread,
)
from runtools.sdk.shapes.threads import ThreadExport, ThreadMessage
from runtools.sdk.sync.transport import Transport

Config = RunConfig | Mapping[str, Any]
OutputSchema = type[BaseModel] | Mapping[str, Any]

_PAGE = 100
_WAIT_SECONDS = 30.0  # how long one request waits; the platform allows 60
_PAUSE_SECONDS = 1.0  # between looks at one that waits for a person
_ENDS = frozenset({"completed", "failed", "cancelled", "limit_reached"})


class Runs:
    """The org's runs: ``rt.runs``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        status: RunStatus | None = None,
        agent: str | None = None,
        thread_id: str | None = None,
        project_id: str | None = None,
    ) -> Generator[Run, None, None]:
        """Runs, the newest first: those that fit all of what is given.

        Args:
            status: how they stand.
            agent: whose, by slug or id.
            thread_id: of which thread.
            project_id: of which project.
        """
        query = [("status", status), ("agent", agent), ("threadId", thread_id)]
        pages = self._transport.pages("/runs", [*query, ("projectId", project_id)], _PAGE)
        with closing(pages) as items:
            for item in items:
                yield wire.shape(Run, item)

    def get(self, run_id: str) -> AgentRun:
        """One by its id.

        Raises:
            NotFound: the org has none of that id.
        """
        answer = self._transport.call("GET", f"/runs/{wire.segment(run_id)}")
        return AgentRun(self._transport, wire.shape(Run, answer.data))


class AgentRun:
    """A run; ``view`` is how it was when last heard of, `refresh` asks again.

    It does not hang on this program: whoever leaves finds it again by `rt.runs.get`.
    """

    view: Run

    def __init__(self, transport: Transport, view: Run) -> None:
        self._transport = transport
        self._path = f"/runs/{wire.segment(view.id)}"
        self.id = view.id
        self.thread_id = view.thread_id
        self.view = view

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def status(self) -> RunStatus:
        """How it stood when last heard of."""
        return self.view.status

    @property
    def has_ended(self) -> bool:
        """Whether it had ended."""
        return self.view.status in _ENDS

    def refresh(self) -> AgentRun:
        """Ask how it is now; returns itself."""
        return self._seen(self._transport.call("GET", self._path))

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until it has ended; one that waits for an approval is waited for too.

        Args:
            timeout: in seconds; default: for ever.

        Returns:
            How it ended: ``output`` has the last text, ``usage`` what it took.

        Raises:
            RunFailed: it has failed; the message says why.
            DeadlineExceeded: it has not ended when the time is up. It goes on.
        """
        until = None if timeout is None else monotonic() + timeout
        while not self.has_ended:
            left = _WAIT_SECONDS if until is None else max(until - monotonic(), 0.0)
            seconds = min(left, _WAIT_SECONDS)
            answer = self._transport.call(
                "GET",
                self._path,
                query=[("waitSeconds", int(seconds))],
                seconds=seconds + wire.CALL_SECONDS,
            )
            if self._seen(answer).has_ended:
                break
            if until is not None and monotonic() >= until:
                raise DeadlineExceeded(
                    f"{self.id} has not ended after {timeout} seconds: it is {self.status}",
                    hint="it goes on; rt.runs.get finds it",
                )
            if self.status == "waiting" or seconds < 1:
                sync_sleep(min(_PAUSE_SECONDS, left))
        if self.status == "failed":
            raise _failure(self.view)
        return self.view

    def events(self, after: int = 0) -> Generator[RunEvent, None, None]:
        """Its events after a number, then those to come, until its ``done``.

        A connection that breaks is taken up again after the last event seen: none is missed and none comes
        twice. Live pieces (``seq`` is None) are given to who reads at the moment.

        Args:
            after: the number of the last event that is known; 0: from the first on.
        """
        path = f"{self._path}/events"
        with closing(self._transport.follow(path, query=[("after", after)])) as events:
            for event in events:
                if event.name not in PAYLOADS:
                    continue  # of a newer platform
                found = wire.parsed(RunEvent, event.data)
                yield found
                if found.type == "done":
                    return

    def cancel(self) -> AgentRun:
        """End it. What a worker has under way is ended by that in a moment; `wait` tells."""
        return self._act("/cancel", None)

    def approve(
        self,
        call_id: str,
        decision: Decision = "allow",
        *,
        arguments: Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> AgentRun:
        """Decide on a call that waits for a person.

        Args:
            call_id: the call's, from the event ``approval-requested``.
            decision: ``allow`` or ``deny``.
            arguments: in place of the model's.
            reason: what the model is told.

        Raises:
            NotFound: no such call waits.
            AlreadyDecided: it was decided on otherwise; ``details`` have the ``decision``, its ``actor``,
                the ``reason`` and the ``arguments``.
            Conflict: it was broken off.
        """
        body = {"callId": call_id, "decision": decision, "reason": reason}
        if arguments is not None:
            body["arguments"] = dict(arguments)  # type: ignore[assignment]
        return self._act("/approve", body)

    def steer(
        self, message: str, *, mode: Steering = "queue", images: Sequence[RunImage] = ()
    ) -> AgentRun:
        """Say something to it while it is under way.

        Args:
            message: what.
            mode: ``queue``: it is heard after the turn; ``interrupt``: it breaks the turn off.
            images: pictures beside it.

        Raises:
            RunEnded: it is over; another run of its thread goes on.
        """
        body = {"message": message, "mode": mode, "images": _images(images)}
        return self._act("/messages", body)

    def resume(self, message: str | None = None, *, config: Config | None = None) -> AgentRun:
        """Go on from where a limit stopped it: another run of its thread, with a budget of its own.

        Args:
            message: what to say beside.
            config: what the other run does otherwise, such as ``{"max_iterations": 50}``.

        Raises:
            RunIllegalMove: no limit has stopped it.
            Conflict: another run goes on from it already.
        """
        body = {"message": message, "config": config_of(config)}
        answer = self._transport.call("POST", f"{self._path}/continue", body=body)
        return AgentRun(self._transport, wire.shape(Run, answer.data))

    def _act(self, path: str, body: Mapping[str, Any] | None) -> AgentRun:
        return self._seen(self._transport.call("POST", self._path + path, body=body))

    def _seen(self, answer: wire.Answer) -> AgentRun:
        self.view = wire.shape(Run, answer.data)
        return self


class Threads:
    """Conversations that are kept across runs: ``rt.threads``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, agent: str | None = None, project_id: str | None = None
    ) -> Generator[Thread, None, None]:
        """The org's threads, the one used last first; of an agent (slug or id), or a project."""
        query = [("agent", agent), ("projectId", project_id)]
        pages = self._transport.pages("/threads", query, _PAGE)
        with closing(pages) as items:
            for item in items:
                yield wire.shape(Thread, item)

    def get(self, thread_id: str) -> Thread:
        """One by its id."""
        return wire.shape(Thread, (self._transport.call("GET", _thread(thread_id))).data)

    def rename(self, thread_id: str, title: str | None) -> Thread:
        """Give it another title, or none."""
        answer = self._transport.call("PATCH", _thread(thread_id), body={"title": title})
        return wire.shape(Thread, answer.data)

    def delete(self, thread_id: str) -> None:
        """Delete it with its runs, and all that was said in it. Its sandbox stays.

        Raises:
            Conflict: a run of it is under way.
        """
        self._transport.call("DELETE", _thread(thread_id))

    def messages(self, thread_id: str) -> Sequence[ThreadMessage]:
        """All that people and the model said in it, in order."""
        pages = self._transport.pages(f"{_thread(thread_id)}/messages", [], _PAGE)
        with closing(pages) as items:
            return [wire.shape(ThreadMessage, item) for item in items]

    def export(self, thread_id: str) -> ThreadExport:
        """All of it: its runs, the oldest first, with their whole logs."""
        answer = self._transport.call("GET", f"{_thread(thread_id)}/export")
        return wire.shape(ThreadExport, answer.data)


def begin(transport: Transport, body: Mapping[str, Any]) -> AgentRun:
    """A new run, which is not waited for."""
    answer = transport.call("POST", "/run", query=[("waitSeconds", 0)], body=body)
    return AgentRun(transport, wire.shape(Run, answer.data))


def request(
    slug: str,
    message: str | Sequence[RunMessage],
    *,
    project: str | None,
    thread_id: str | None,
    sandbox_id: str | None,
    images: Sequence[RunImage],
    config: Config | None,
    output_schema: OutputSchema | None,
    metadata: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The body of a request for a run."""
    body: dict[str, Any] = {"agentSlug": slug, "config": config_of(config)}
    if isinstance(message, str):
        body |= {"message": message, "images": _images(images)}
    else:
        body["messages"] = [one.model_dump(mode="json", by_alias=True) for one in message]
    if output_schema is not None:
        body["outputSchema"] = _schema(output_schema)
    given = {"project": project, "threadId": thread_id, "sandboxId": sandbox_id}
    body |= {name: value for name, value in given.items() if value is not None}
    return body | {"metadata": dict(metadata or {})}


def config_of(config: Config | None) -> dict[str, Any]:
    """A config as it travels."""
    if config is None:
        return {}
    found = config if isinstance(config, RunConfig) else RunConfig.model_validate(config)
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)


def _schema(wanted: OutputSchema) -> dict[str, Any]:
    return wanted.model_json_schema() if isinstance(wanted, type) else dict(wanted)


def _images(images: Sequence[RunImage]) -> list[dict[str, Any]]:
    return [image.model_dump(mode="json", by_alias=True) for image in images]


def _thread(thread_id: str) -> str:
    return f"/threads/{wire.segment(thread_id)}"


def _failure(run: Run) -> RunFailed:
    why = "" if run.error is None else f": {run.error.message}"
    code = None if run.error is None else run.error.code
    return RunFailed(
        f"{run.id} of {run.agent_slug} has failed{why}",
        hint=None if run.error is None else run.error.hint,
        details={"runId": run.id, "code": code},
    )
