"""What front ends' own packages make of what they are told: they refuse nothing, whatever a run's end."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from tests.unit.platform.api.frontends import worlds
from tests.unit.platform.api.frontends.worlds import RUN, event

from runtools.platform.api.frontends.ag_ui import Events
from runtools.platform.api.frontends.ai_sdk import Chunks
from runtools.platform.api.frontends.telling import Teller
from runtools.sdk.shapes.runs import (
    ApprovalRequested,
    ApprovalResolved,
    Compaction,
    Message,
    RunError,
    RunEvent,
    ToolImage,
    ToolResult,
    Trouble,
)
from runtools.testing import node

pytestmark = pytest.mark.skipif(not node.has("ai"), reason="./dev test fetches it")

ASKED = event(
    "approval-requested", ApprovalRequested(call_id="c1", name="bash", arguments={}, turn=1), 5
)
NO = ApprovalResolved(call_id="c1", decision="deny", reason="no", actor="usr_1")
YES = ApprovalResolved(call_id="c1", decision="allow", actor="usr_1")
IMAGE = ToolImage(media_type="image/png", data="aGk=")
SHOWN = ToolResult(call_id="c1", name="bash", output="", images=[IMAGE], duration_ms=1, turn=1)
BEGUN = [worlds.started(), worlds.answer("I look."), worlds.call()]
SPOKEN = event("message", Message(role="user", text="Stop.", turn=1, steering="interrupt"), 12)

LIVES: dict[str, tuple[list[RunEvent], list[str]]] = {
    "live": (worlds.live(), ["output-available"]),
    "from the log": (worlds.kept(), ["output-available"]),
    "denied": (
        [*BEGUN, ASKED, event("approval-resolved", NO, 6), worlds.result("no", failed=True),
         worlds.done()],
        ["output-denied"],
    ),
    "allowed": (
        [*BEGUN, ASKED, event("approval-resolved", YES, 6), worlds.result("ok"), worlds.done()],
        ["output-available"],
    ),
    "a call failed": (
        [*BEGUN, worlds.result("no such file", failed=True), worlds.done()],
        ["output-error"],
    ),
    "failed": (
        [*BEGUN, worlds.result("ok"),
         event("error", Trouble(code="overloaded", message="busy", turn=2, retrying=1.0), 12),
         worlds.done(status="failed", error=RunError(code="overloaded", message="too busy"))],
        ["output-available"],
    ),
    "cancelled": (
        [*BEGUN, worlds.output("a"), worlds.result("cancelled", failed=True),
         worlds.done(status="cancelled", output=None)],
        ["output-error"],
    ),
    "cancelled before it began": ([worlds.done(status="cancelled", output=None)], []),
    "limit": (
        [*BEGUN, worlds.result("ok"), worlds.done(status="limit_reached", limit="max_cost_usd")],
        ["output-available"],
    ),
    "structured": (
        [*BEGUN, worlds.result("taken"), worlds.done(structured={"n": 1})],
        ["output-available"],
    ),
    "a page's own call": (
        [worlds.started(), worlds.call(front=True), worlds.result("Bern"), worlds.done()],
        ["output-available"],
    ),
    "a picture, a word, a summary": (
        [*BEGUN, event("tool-result", SHOWN, 11), SPOKEN,
         event("compaction", Compaction(turn=2, tokens_before=3, summary="s"), 13), worlds.done()],
        ["output-available"],
    ),
    "of an earlier message": ([worlds.result("ok"), worlds.text("Well."), worlds.done()], []),
}  # fmt: skip
WAITS: dict[str, tuple[list[RunEvent], list[str]]] = {
    "for a person": ([*BEGUN, ASKED], ["approval-requested"]),
    "for the page": ([worlds.started(), worlds.call(front=True)], ["input-available"]),
}
EXPECTED = {"failed": ["Error: too busy"]}


def told(tells: Teller, events: list[RunEvent], pauses: bool) -> list[dict[str, Any]]:
    """A whole stream."""
    said = [*tells.begin(), *(each for one in events for each in tells.of(one))]
    return [*said, *(tells.pause() if pauses else ())]


def read(ai_sdk: list[Any], of_ag_ui: list[Any]) -> dict[str, Any]:
    """What the packages say of these streams."""
    ended = subprocess.run(
        [str(node.NODE), "told.mjs"],
        input=json.dumps({"aiSdk": ai_sdk, "agUi": of_ag_ui}).encode(),
        cwd=node.NPM,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_all_that_is_told_is_taken() -> None:
    all_ = [(name, *one, False) for name, one in LIVES.items()]
    all_ += [(name, *one, True) for name, one in WAITS.items()]
    found = read(
        [told(Chunks(RUN), events, pauses) for _, events, _, pauses in all_],
        [
            told(Events("their-thread", "their-run"), events, pauses)
            for _, events, _, pauses in all_
        ],
    )
    for (name, _, states, _), of_sdk, of_ag_ui in zip(
        all_, found["aiSdk"], found["agUi"], strict=True
    ):
        assert (name, of_sdk["refused"], of_sdk["errors"]) == (name, [], EXPECTED.get(name, []))
        assert (name, of_sdk["states"]) == (name, states)
        assert (name, of_ag_ui) == (name, {"refused": [], "errors": []})
    metadata = {name: one["metadata"] for (name, *_), one in zip(all_, found["aiSdk"], strict=True)}
    assert metadata["structured"]["structured"] == {"n": 1}
    assert metadata["limit"]["limit"] == "max_cost_usd"


def test_what_they_do_not_know_is_refused() -> None:
    """Else it would say nothing that they refuse none of it."""
    strange = [{"type": "start"}, {"type": "tool-output-available", "output": "of no call"}]
    over = [{"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}, {"type": "STRANGE"}]
    found = read([strange], [over])
    assert len(found["aiSdk"][0]["refused"]) == 1
    assert len(found["agUi"][0]["refused"]) == 1
    assert found["agUi"][0]["errors"]
