"""Deciding on calls that wait for a person: nobody is asked about what was not shown to its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from runtools.cli import run_looks
from runtools.sdk.shapes.runs import ApprovalRequested

if TYPE_CHECKING:
    from runtools.sdk.sync.runs import AgentRun


def waiting(found: AgentRun) -> dict[str, ApprovalRequested]:
    """The calls of a run that wait for a person, by their ids."""
    asked: dict[str, ApprovalRequested] = {}
    if found.refresh().status not in ("waiting", "running"):
        return {}
    for event in found.events():
        if event.type == "approval-requested":
            asked[str(event.data["callId"])] = ApprovalRequested.model_validate(event.data)
        elif event.type in ("approval-resolved", "tool-result"):
            asked.pop(str(event.data["callId"]), None)
        if event.seq is None or event.seq >= found.view.last_seq:
            break
    return asked


def decide(found: AgentRun, call_id: str) -> None:
    """Ask the person at the terminal about a call that waits."""
    asked = waiting(found).get(call_id)
    if asked is None:
        return  # somebody else was faster
    answer = answered(asked, _line, click.echo_via_pager)
    if answer.lower() in ("y", "yes"):
        found.approve(call_id)
    elif answer.lower() in ("", "n", "no"):
        found.approve(call_id, "deny")
    else:
        found.approve(call_id, "deny", reason=answer)


def answered(
    asked: ApprovalRequested, ask: Callable[[str], str], page: Callable[[str], None]
) -> str:
    """What the person says. Who would allow what was shown in part alone is shown all of it first."""
    is_seen = not run_looks.is_long(asked.arguments)
    question = "  allow it? [y]es, [n]o, or what to tell the model instead: "
    if not is_seen:
        question = question.replace("[n]o", "[n]o, [v]iew all of it")
    while True:
        answer = ask(question)
        wants_to_see = not is_seen and answer.lower() in ("y", "yes")
        if not wants_to_see and (is_seen or answer.lower() not in ("v", "view")):
            return answer
        page(run_looks.whole(asked))
        is_seen = True


def _line(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()
