"""Deciding on calls that wait for a person: nobody is asked about what was not shown to its end."""

from __future__ import annotations

import json
import sys
import termios
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from runtools.cli import output, run_looks
from runtools.errors import Conflict, RunEnded, RunToolsError
from runtools.sdk.shapes.runs import ApprovalRequested, Decision

if TYPE_CHECKING:
    from runtools.sdk.sync.runs import AgentRun


def waiting(found: AgentRun) -> dict[str, ApprovalRequested]:
    """The calls of a run that wait for a person, by their ids."""
    asked: dict[str, ApprovalRequested] = {}
    # One that is queued may have calls that wait: of several, each is decided on by itself.
    if found.refresh().has_ended or not found.view.last_seq:
        return {}
    for event in found.events():
        if event.type == "approval-requested":
            asked[str(event.data["callId"])] = ApprovalRequested.model_validate(event.data)
        elif event.type in ("approval-resolved", "tool-result"):
            asked.pop(str(event.data["callId"]), None)
        if event.seq is not None and event.seq >= found.view.last_seq:
            break
    return asked


def decide_all(
    found: AgentRun,
    calls: Sequence[str],
    decision: Decision,
    arguments: dict[str, Any] | None,
    reason: str | None,
) -> tuple[list[str], list[RunToolsError], list[str]]:
    """Decide alike on several calls of a run.

    Returns:
        The ids of those that it was done for, why not for others, and the ids of those that were not tried.
    """
    done: list[str] = []
    faults: list[RunToolsError] = []
    for n, call in enumerate(calls, 1):
        try:
            found.approve(call, decision, arguments=arguments, reason=reason)
            done.append(call)
        except RunToolsError as fault:
            faults.append(fault)
            if isinstance(fault, RunEnded) or not isinstance(fault, Conflict):
                return done, faults, list(calls[n:])  # it is so for these, too
    return done, faults, []


def decide(found: AgentRun, asked: ApprovalRequested) -> None:
    """Ask the person at the terminal about a call that waits. Who is too late is told, and watches on."""
    try:
        _decide(found, asked)
    except Conflict as late:  # somebody else was faster, or the run has ended
        output.note(f"  {late.message}")


def _decide(found: AgentRun, asked: ApprovalRequested) -> None:
    call_id = asked.call_id
    while True:
        answer = answered(asked, _line, click.echo_via_pager)
        if answer.lower() not in ("e", "edit"):
            break
        arguments = edited(asked, _edit)
        if arguments is not None:
            found.approve(call_id, arguments=arguments)
            return
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
    question = "  allow it? [y]es, [n]o, [e]dit it first, or what to tell the model instead: "
    if not is_seen:
        question = question.replace("[n]o", "[n]o, [v]iew all of it")
    while True:
        answer = ask(question)
        wants_to_see = not is_seen and answer.lower() in ("y", "yes")
        if not wants_to_see and (is_seen or answer.lower() not in ("v", "view")):
            return answer
        page(run_looks.whole(asked))
        is_seen = True


def edited(asked: ApprovalRequested, edit: Callable[[str], str | None]) -> dict[str, Any] | None:
    """The arguments as the person wants them; None: they were left as they are, and nothing is decided.

    Args:
        edit: has a text changed; None: it was not saved.
    """
    text = edit(_visible(json.dumps(asked.arguments, indent=2, ensure_ascii=False)))
    while text is not None:
        try:
            found = json.loads(text)
        except ValueError as exc:
            found = None
            output.note(f"  that is no JSON: {exc}")
        if isinstance(found, dict):
            return found
        text = edit(text)
    return None


def _visible(text: str) -> str:
    """JSON in which no letter hides, or steers what the editor shows: those are written as escapes."""
    return "".join(
        one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text
    )


def _edit(text: str) -> str | None:
    try:
        return click.edit(text, extension=".json")
    except click.ClickException as exc:
        output.note(f"  {exc.format_message()}; EDITOR says which is to be used")
        return None


def _line(question: str) -> str:
    # What was typed before it was asked answers something else.
    termios.tcflush(sys.stdin, termios.TCIFLUSH)
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()
