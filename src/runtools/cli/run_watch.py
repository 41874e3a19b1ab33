"""Watching a run to its end, and having a word in it: deciding what waits, cancelling, leaving it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import typer

from runtools.cli import output
from runtools.cli.deciding import decide, waiting
from runtools.cli.run_view import RunView
from runtools.errors import InvalidRequest

if TYPE_CHECKING:
    from runtools.cli.talk import Typed
    from runtools.sdk.shapes.runs import ApprovalRequested, RunEvent
    from runtools.sdk.sync.runs import AgentRun

_LEFT = 130


def watch(found: AgentRun, *, cancels: bool, after: int = 0, typed: Typed | None = None) -> str:
    """Show a run to its end, and how it ended. Ctrl-C cancels it first, and then leaves it."""
    if typed is None and not output.is_json():  # a talk says at its end how one goes on with it
        output.note(f"{found.id}  thread {found.thread_id}")
    if found.view.waits_for == "worker":
        output.note("no worker is connected: it begins when there is one (runtools status)")
    seen = _Seen(after, typed)
    while True:
        try:
            ending = _show(found, seen)
        except KeyboardInterrupt:
            if not cancels or seen.cancelled:
                output.note(f"it goes on: runtools runs follow {found.id}")
                raise typer.Exit(_LEFT) from None
            seen.cancelled = True
            output.note("cancelling; Ctrl-C once more leaves it")
            found.cancel()
        else:
            if ending == "limit_reached" and not output.is_json():
                output.note(f"to go on: runtools runs continue {found.id}")
            return ending


class _Seen:
    """How far a run was shown, and who has a word in it meanwhile."""

    def __init__(self, after: int, typed: Typed | None) -> None:
        self.last = after
        self.typed = typed
        self.cancelled = False
        self.view: Any = None


def _show(found: AgentRun, seen: _Seen) -> str:
    events = found.events(seen.last)
    if output.is_json():
        return _through(found, seen, events, output.item)
    if seen.view is None:
        seen.view = RunView(found.view.created_at, seen.typed or "")
    while True:
        hears = nullcontext() if seen.typed is None else seen.typed.heard(found.steer)
        with hears, seen.view.shown():
            came = _until_asked(found, seen, events)
        if isinstance(came, str):
            return came
        if seen.typed is not None:
            seen.typed.finish(found.steer)
        decide(found, came)
        events = found.events(seen.last)


def _until_asked(
    found: AgentRun, seen: _Seen, events: Iterable[RunEvent]
) -> str | ApprovalRequested:
    """Show what comes until a person has to be asked; or how the run ended."""
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    for event in events:
        seen.last = event.seq or seen.last
        seen.view.show(event)
        if event.type == "done":
            return str(event.data["status"])
        if event.type == "approval-requested" and asks:
            asked = waiting(found).get(str(event.data["callId"]))
            if asked is not None:  # nobody else was faster
                return asked
        elif event.type == "approval-requested" and seen.last >= found.view.last_seq:
            # Nobody has answered it that we know of.
            output.note(f"to decide: runtools runs approve {found.id} (--deny)")
    raise InvalidRequest(f"the events of {found.id} broke off")  # pragma: no cover


def _through(found: AgentRun, seen: _Seen, events: Iterable[RunEvent], tell: Any) -> str:
    for event in events:
        seen.last = event.seq or seen.last
        tell(event)
        if event.type == "done":
            return str(event.data["status"])
    raise InvalidRequest(f"the events of {found.id} broke off")  # pragma: no cover
