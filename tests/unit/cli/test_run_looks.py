"""Runs on a terminal: what models and tools say steers nothing, and what is asked for is shown whole."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from runtools.cli import deciding, model_looks, output, run_looks, run_view, runs
from runtools.errors import (
    AlreadyDecided,
    Conflict,
    InvalidRequest,
    RunEnded,
    RunToolsError,
    Unavailable,
)
from runtools.sdk.shapes.models import EndpointModel
from runtools.sdk.shapes.runs import ApprovalRequested, Run, RunEvent

EVIL = "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b31m\u202eevil\x7f"
STEERING = ("\x1b]52", "\x1b[2J", "\x07", "\x9b", "\u202e", "\x7f")
USAGE = {"inputTokens": 1, "outputTokens": 1}


NOW = datetime(2026, 11, 27, tzinfo=UTC)


def event(kind: str, **data: Any) -> RunEvent:
    return RunEvent.model_validate(
        {"type": kind, "seq": 1, "runId": "run_1", "at": NOW, "data": data}
    )


EVENTS = [
    event("run-started", agentSlug="a", agentVersion=1, model=EVIL, threadId="t"),
    event("thinking", text=EVIL, turn=1, attempt=1),
    event("text-delta", text=f"{EVIL} ", turn=1, attempt=1),
    event("message", role="assistant", text=f"{EVIL} [good](https://evil.example)", turn=1),
    event("message", role="user", text=EVIL, turn=1, steering="queue"),
    event("tool-call", callId="c", name=EVIL, arguments={"command": EVIL}, turn=1),
    event("tool-output-delta", callId="c", text=EVIL, attempt=1),
    event("approval-requested", callId="c", name=EVIL, arguments={EVIL: EVIL}, turn=1),
    event("approval-resolved", callId="c", decision="deny", reason=EVIL, actor=EVIL),
    event("tool-result", callId="c", name=EVIL, output=EVIL, durationMs=1, turn=1),
    event("error", code="x", message=EVIL, turn=1),
    event("done", status="failed", output=None, usage=USAGE, iterations=1,
          error={"code": "x", "message": EVIL, "hint": EVIL}, limit=EVIL),
]  # fmt: skip


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal."""
    written = io.StringIO()

    def console(**_: Any) -> Console:
        return Console(file=written, force_terminal=True, width=80, color_system=None)

    monkeypatch.setattr(run_view, "Console", console)
    return written


def test_nothing_that_was_said_steers_the_terminal(screen: io.StringIO) -> None:
    view = run_view.RunView(NOW)
    with view.shown() as shown:
        for one in EVENTS:
            shown.show(one)
            shown._live.refresh()
    text = screen.getvalue()
    assert text.count("evil") >= len(EVENTS)
    assert [found for found in STEERING if found in text] == []
    assert "https://evil.example" in text  # a link says where it leads
    assert "\x1b]8" not in text


def test_what_is_said_goes_through_a_pipe_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    view = run_view.RunView(NOW)
    for one in EVENTS:
        view.show(one)
    out, err = capsys.readouterr()
    assert EVIL in out
    assert [found for found in STEERING if found in err] == []


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("1\n2\n3\n4\n[exit code 0]", "✓ bash  0.1 s\n  … 1 more line\n  2\n  3\n  4\n"),
        ("1\n2\n[exit code 7]", "✗ bash  exit code 7 · 0.1 s\n  1\n  2\n"),
        ("[exit code 0]", "✓ bash  0.1 s\n"),
        ("1\n2\n3\n4\n5", "✓ bash  0.1 s\n  1\n  2\n  3\n  … 2 more lines\n"),
    ],
)
def test_what_came_of_a_command_is_not_folded_away(
    capsys: pytest.CaptureFixture[str], output: str, shown: str
) -> None:
    result = event("tool-result", callId="c", name="bash", output=output, durationMs=100, turn=1)
    run_view.RunView(NOW).show(result)
    assert capsys.readouterr().err == shown


def test_who_comes_in_the_middle_is_told_all_of_it_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = run_view.RunView(NOW)
    for offset, text in ((6, "world, "), (13, "you")):
        view.show(event("text-delta", text=text, turn=1, attempt=1, offset=offset))
    view.show(event("message", role="assistant", text="Hello world, you", turn=1))
    view.show(event("text-delta", text="And ", turn=2, attempt=1, offset=0))
    view.show(event("text-delta", text="last", turn=2, attempt=1, offset=10))
    view.show(event("message", role="assistant", text="And this at last", turn=2))
    assert capsys.readouterr().out == "Hello world, you\nAnd this at last\n"


def test_lines_that_end_otherwise_are_shown_as_they_come_and_once(screen: io.StringIO) -> None:
    view = run_view.RunView(NOW)
    pieces = ["One.\r", "\n\r\n", "Two.\r\n\r\n", "Three."]
    offset = 0
    with view.shown() as shown:
        for text in pieces:
            shown.show(event("text-delta", text=text, turn=1, attempt=1, offset=offset))
            offset += len(text)
        shown._live.refresh()
        assert all(word in screen.getvalue() for word in ("One.", "Two.", "Three."))
        screen.seek(screen.truncate(0))
        shown.show(event("message", role="assistant", text="".join(pieces), turn=1))
        drawn = screen.getvalue()
    assert "One." not in drawn  # it stands there for good
    assert "Three." in drawn
    assert "\ufffd" not in drawn


def test_what_a_run_took_is_no_matter_of_when_one_looks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_view.RunView(NOW - timedelta(minutes=3, seconds=4)).show(
        event("done", status="completed", output="a", usage=USAGE, iterations=1)
    )
    assert "completed · 3 min 4 s · 1 turn" in capsys.readouterr().err


def asked(**arguments: Any) -> ApprovalRequested:
    return ApprovalRequested(call_id="c", name="write_file", arguments=arguments, turn=1)


def test_short_ones_are_shown_whole() -> None:
    wanted = asked(path="a.py", content="one\n\x1b[8mtwo\n", mode=7)
    lines = run_looks.asked_for(wanted, all_of_it=False)
    assert lines == ['  path: "a.py"', "  content:", "    one", "    �[8mtwo", "    ", "  mode: 7"]


def test_long_ones_say_what_is_missing() -> None:
    wanted = asked(content="safe\n" * 1000 + "rm -rf /")
    assert run_looks.is_long(wanted.arguments)
    shown = run_looks.asked_for(wanted, all_of_it=False)
    assert "rm -rf" not in "\n".join(shown)
    assert shown[-1].endswith("more characters are not shown")
    assert "rm -rf /" in run_looks.whole(wanted)
    assert "rm -rf /" in "\n".join(run_looks.asked_for(wanted, all_of_it=True))


@pytest.mark.parametrize(
    ("answers", "pages", "said"),
    [
        (["y", "y"], 1, "y"),
        (["v", "n"], 1, "n"),
        (["yes", ""], 1, ""),
        (["no"], 0, "no"),
        (["do it otherwise"], 0, "do it otherwise"),
        (["v", "v"], 1, "v"),
    ],
)
def test_nobody_allows_what_was_not_shown(answers: list[str], pages: int, said: str) -> None:
    shown: list[str] = []
    wanted = asked(content="x" * 5000 + "the end")
    left = iter(answers)
    assert deciding.answered(wanted, lambda _: next(left), shown.append) == said
    assert len(shown) == pages
    assert all("the end" in page for page in shown)


def test_a_call_is_changed_before_it_is_allowed() -> None:
    wanted = asked(content="a\u202eb", mode=7)
    seen: list[str] = []
    answers = iter(['{"mode": ', "[7]", '{"mode": 8}'])

    def edit(text: str) -> str | None:
        seen.append(text)
        return next(answers)

    assert deciding.edited(wanted, edit) == {"mode": 8}
    assert json.loads(seen[0]) == wanted.arguments
    assert "\u202e" not in seen[0]  # what steers is shown as an escape
    assert seen[1:] == ['{"mode": ', "[7]"]  # what was no object is changed on
    assert deciding.edited(wanted, lambda _: None) is None


def test_who_decides_too_late_is_told_what_was_decided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Late:
        def approve(self, *_: object, **__: object) -> None:
            raise AlreadyDecided("call 'c1' was decided on already: deny, by usr_1: too much")

    monkeypatch.setattr(deciding, "answered", lambda *_: "y")
    deciding.decide(Late(), asked(path="a"))  # type: ignore[arg-type]
    assert "decided on already: deny, by usr_1: too much" in capsys.readouterr().err


def decided_together(
    monkeypatch: pytest.MonkeyPatch, faults: dict[str, RunToolsError]
) -> tuple[list[str], Exception | None]:
    """Allow three calls that wait; what was tried, and how it ended."""
    tried: list[str] = []
    view = Run.model_construct(id="run_1", status="running")

    class Found:
        id, status = "run_1", "running"

        def __init__(self) -> None:
            self.view, self.runs = view, self

        def get(self, _: str) -> Found:
            return self

        def approve(self, call: str, *_: object, **__: object) -> None:
            tried.append(call)
            if call in faults:
                raise faults[call]

    @contextmanager
    def connected() -> Iterator[Found]:
        yield Found()

    waiting = {one: asked(command=one).model_copy(update={"call_id": one}) for one in "abc"}
    monkeypatch.setattr(runs, "connected", connected)
    monkeypatch.setattr(deciding, "waiting", lambda _: waiting)
    try:
        runs.approve("run_1", None, False, None, None)
    except RunToolsError as error:
        return tried, error
    return tried, None


def test_of_calls_that_are_decided_on_together_each_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = {"a": AlreadyDecided("a was decided on"), "c": Conflict("c waits no more")}
    tried, error = decided_together(monkeypatch, late)
    told = capsys.readouterr()
    assert (tried, error) == (["a", "b", "c"], late["c"])  # which the command says at its end
    assert told.out.startswith("allowed: b\n")
    assert "error: a was decided on" in told.err


@pytest.mark.parametrize("fault", [RunEnded("run_1 has ended"), Unavailable("the api is away")])
def test_what_was_allowed_is_told_where_the_rest_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: RunToolsError
) -> None:
    tried, error = decided_together(monkeypatch, {"b": fault})
    assert (tried, error) == (["a", "b"], fault)
    told = capsys.readouterr()
    assert told.out.startswith("allowed: a\n")
    assert "not tried: c\n" in told.err


def test_an_object_is_one_line_whatever_ends_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` is one event a line, also to programs that go by what Python takes for lines."""
    said = event("text-delta", text="a\u2028b\x85c\u2029", turn=1, attempt=1)
    monkeypatch.setattr(output, "_as_json", True)
    output.item(said)
    output.show([said, said], lambda: "")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(one) for one in lines] == [
        said.model_dump(mode="json"),
        [said.model_dump(mode="json")] * 2,
    ]


def test_of_what_is_longer_than_the_screen_its_end_is_shown(screen: io.StringIO) -> None:
    view = run_view.RunView(NOW)
    lines = "\n".join(f"line {n}" for n in range(400))
    with view.shown() as shown:
        shown.show(event("text-delta", text=f"```\n{lines}", turn=1, attempt=1))
        screen.seek(screen.truncate(0))
        shown._live.refresh()
        drawn = screen.getvalue()
    assert "line 399" in drawn
    assert "line 100\n" not in drawn
    assert drawn.count("\n") < 25  # of the 25 lines that it has


def test_the_clock_goes_on_while_nothing_comes(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(run_view, "monotonic", lambda: now)
    view = run_view.RunView(NOW)
    total = {"inputTokens": 1200, "outputTokens": 34, "costUsd": "0.0100", "requests": 1}
    with view.shown() as shown:
        shown.show(event("usage", **USAGE, turn=1, total=total))
        now += 42
        shown._live.refresh()
        assert "42 s · 1,234 tokens · $0.0100" in screen.getvalue()


def test_what_was_shown_is_asked_about_once() -> None:
    left = iter(["y"])
    assert deciding.answered(asked(path="a"), lambda _: next(left), pytest.fail) == "y"


def test_what_an_endpoint_calls_its_models_steers_nothing_either(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = str(model_looks.names([EndpointModel(name=EVIL, api_id="x")]))
    output.fail(InvalidRequest(f"it said {EVIL}", hint=EVIL))
    text = shown + capsys.readouterr().err
    assert text.count("evil") == 3
    assert [found for found in STEERING if found in text] == []


def test_what_is_said_stands_apart_by_one_line_from_what_is_done(screen: io.StringIO) -> None:
    view = run_view.RunView(NOW)
    result = event("tool-result", callId="c", name="bash", output="so", durationMs=100, turn=1)
    view.show(event("message", role="assistant", text="First.\n\n- one\n- two\n\nLast.", turn=1))
    view.show(result)
    view.show(event("message", role="assistant", text="# Then", turn=2))
    lines = [line.strip() for line in screen.getvalue().splitlines()]
    assert lines == [
        "First.", "", "• one", "• two", "", "Last.", "", "✓ bash  0.1 s", "so", "", "Then", ""
    ]  # fmt: skip


def test_no_id_of_a_run_is_cut_at_eighty_columns() -> None:
    out = io.StringIO()
    found = [
        Run.model_validate(
            {
                "id": f"run_{n:020}",
                "status": status,
                "agentSlug": "an-agent-with-a-long-name",
                "agentVersion": 12,
                "model": "demo",
                "threadId": f"thr_{n:020}",
                "projectId": "prj_x",
                "sandboxId": None,
                "startedAt": NOW,
                "iterations": 3,
                "lastSeq": 9,
                "createdAt": NOW,
                "endedAt": NOW + timedelta(minutes=59, seconds=59),
                "usage": {"inputTokens": 1_234_567, "costUsd": cost},
            }
        )
        for n, (status, cost) in enumerate([("limit_reached", "0.5"), ("completed", "0.25")])
    ]
    Console(file=out, width=80, markup=False, highlight=False).print(run_looks.runs(found))
    for run in found:
        assert run.id in out.getvalue()
        assert run.status in out.getvalue()
    assert "$0.5000" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80
