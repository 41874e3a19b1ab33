"""A run as people see it: what the agent says as it says it, its tools folded to a line or two.

What the agent says goes to stdout, all else to stderr. On a terminal whole blocks of Markdown are printed
as they are complete and the one being written is shown live below them.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from runtools.cli import words
from runtools.cli.run_live import Block, Clock, Tail, drawn
from runtools.cli.run_looks import asked_for, taken, told
from runtools.sdk.shapes.runs import (
    PAYLOADS,
    ApprovalRequested,
    ApprovalResolved,
    Compaction,
    Delta,
    Done,
    Message,
    RunEvent,
    Started,
    ToolCall,
    ToolOutput,
    ToolResult,
    Trouble,
    TurnUsage,
)

_FOLDED_LINES = 3
_NAME = 128
_DRAWN = 4000
_EXIT = re.compile(r"\[exit code (-?\d+)\]")
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
_GAP = re.compile(r"\r?\n\r?\n")
# Kept as the agent said it: offsets count that, and who reads it through a pipe is given it.
_SPOKEN = ("text-delta", "message")


class RunView:
    """Shows the events of one run.

    Args:
        began: when it was begun, which may be long before anybody looks.
        below: what is drawn below it on a terminal, while it goes on.
    """

    def __init__(self, began: datetime, below: RenderableType = "") -> None:
        self._out = Console(highlight=False, emoji=False)
        self._err = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._is_live = self._out.is_terminal
        self._live: Live | None = None
        self._turn_to_draw = threading.RLock()
        self._began = began
        self._at = began  # of the last event
        self._seen = monotonic()
        self._turn = 0
        self._attempt = 0
        self._heard = ""  # of the turn under way
        self._printed = 0  # how much of it stands there for good
        self._thinking = ""
        self._folds = False  # what stands there last is no text of the agent's
        self._calls: dict[str, tuple[ToolCall, str]] = {}
        self._used = ""
        self._end: list[RenderableType] = [Clock(self._so_far), *([below] if below else [])]

    @contextmanager
    def shown(self) -> Iterator[RunView]:
        """Show what is under way live, as long as this lasts."""
        if not self._is_live:
            yield self
            return
        with drawn(self._out, self._turn_to_draw) as live:
            self._live = live
            live.update(self._under_way())
            try:
                yield self
            finally:
                self._live = None

    def show(self, event: RunEvent) -> None:
        """Show one event."""
        with self._turn_to_draw:
            self._take(event)

    def _take(self, event: RunEvent) -> None:
        self._at, self._seen = max(event.at, self._at), monotonic()
        data = event.data if event.type in _SPOKEN else words.harmless_data(event.data)
        heard: Any = PAYLOADS[event.type].model_validate(data)
        getattr(self, f"_on_{event.type.replace('-', '_')}")(heard)
        if self._live is not None:
            self._live.update(self._under_way())

    # --- what is said ---

    def _on_run_started(self, started: Started) -> None:
        self._note(f"{started.agent_slug}@{started.agent_version} on {started.model}")

    def _on_text_delta(self, delta: Delta) -> None:
        if not self._is_current(delta) or delta.offset not in (None, len(self._heard)):
            return  # what came before it was not heard: the message has it all
        self._thinking = ""
        self._heard += delta.text
        if self._is_live:
            self._print_blocks()
        else:
            self._write(delta.text)
            self._printed = len(self._heard)

    def _on_thinking(self, delta: Delta) -> None:
        if self._is_current(delta):
            self._thinking += delta.text

    def _on_message(self, message: Message) -> None:
        if message.role == "user":
            if message.steering is not None:
                self._note(f"you: {words.harmless(message.text)}")
            return
        if message.turn != self._turn or not message.text.startswith(self._heard):
            # Heard in part, or not at all: it is shown from where it is not known.
            if self._printed and not self._is_live:
                self._write("\n")
            self._heard, self._printed = "", 0
        self._heard, self._thinking = message.text, ""
        rest = self._heard[self._printed :]
        if self._is_live:
            self._print_markdown(rest)
        elif self._heard:
            self._write(f"{rest}\n")
        self._turn, self._attempt = message.turn + 1, 0
        self._heard, self._printed = "", 0

    def _is_current(self, delta: Delta) -> bool:
        if (delta.turn, delta.attempt) < (self._turn, self._attempt):
            return False
        if (delta.turn, delta.attempt) > (self._turn, self._attempt):
            if self._printed and not self._is_live:
                self._write("\n")
            self._turn, self._attempt = delta.turn, delta.attempt
            self._heard, self._printed, self._thinking = "", 0, ""
        return True

    def _print_blocks(self) -> None:
        """Print the blocks that are complete: up to the last empty line outside of a fence."""
        rest = self._heard[self._printed :]
        for gap in reversed(list(_GAP.finditer(rest))):
            if len(_FENCE.findall(rest[: gap.start()])) % 2 == 0:
                self._print_markdown(rest[: gap.start()])
                self._printed += gap.end()
                return

    def _print_markdown(self, text: str) -> None:
        if text.strip():
            if self._folds:
                self._out.print()
            self._folds = False
            self._out.print(Block(_markdown(text)))
            self._out.print()

    # --- what is done ---

    def _on_tool_call(self, call: ToolCall) -> None:
        self._calls[call.call_id] = (call, "")
        if not self._is_live:
            self._note(f"→ {_name(call.name)} {told(call.arguments)}")

    def _on_tool_output_delta(self, output: ToolOutput) -> None:
        if output.call_id in self._calls:
            call, before = self._calls[output.call_id]
            self._calls[output.call_id] = (call, (before + output.text)[-4000:])

    def _on_tool_result(self, result: ToolResult) -> None:
        call = self._calls.pop(result.call_id, None)
        arguments = "" if call is None else told(call[0].arguments)
        lines = [line for line in result.output.splitlines() if line.strip()]
        ended = _EXIT.fullmatch(lines[-1]) if lines else None
        if ended is not None:  # it is in the head
            lines.pop()
        is_bad = result.failed or (ended is not None and ended[1] != "0")
        mark, style = ("✗", "red") if is_bad else ("✓", "green")
        how = f"exit code {ended[1]} · " if ended is not None and is_bad else ""
        took = f"{how}{result.duration_ms / 1000:.1f} s"
        self._print(
            Text.assemble(
                (mark, style), " ", (_name(result.name), "bold"), f" {arguments} ", (took, "dim")
            )
        )
        for line in _folded(lines, from_end=ended is not None):
            self._print(Text(f"  {line}", style="dim"))

    def _on_approval_requested(self, asked: ApprovalRequested) -> None:
        self._print(
            Text.assemble(("?", "yellow"), " ", (_name(asked.name), "bold"), " waits to be allowed")
        )
        for line in asked_for(asked, all_of_it=not self._is_live):
            self._print(Text(line, style="dim"))

    def _on_approval_resolved(self, resolved: ApprovalResolved) -> None:
        if resolved.arguments is not None and resolved.call_id in self._calls:
            call, said = self._calls[resolved.call_id]
            changed_to = call.model_copy(update={"arguments": resolved.arguments})
            self._calls[resolved.call_id] = (changed_to, said)
        word = "allowed" if resolved.decision == "allow" else "denied"
        changed = ", with other arguments" if resolved.arguments is not None else ""
        why = f": {resolved.reason}" if resolved.reason else ""
        self._note(f"{word} by {resolved.actor}{changed}{why}")

    # --- how it goes ---

    def _on_usage(self, usage: TurnUsage) -> None:
        self._used = f" · {taken(usage.total)}"

    def _on_compaction(self, compaction: Compaction) -> None:
        before = f"{compaction.tokens_before:,} tokens"
        self._note(f"the conversation was {before} long and goes on from a summary")

    def _on_error(self, trouble: Trouble) -> None:
        again = "" if trouble.retrying is None else f"; again in {trouble.retrying:.1f} s"
        self._note(f"{trouble.message}{again}")

    def _on_done(self, done: Done) -> None:
        if done.error is not None:
            self._print(Text(f"error: {done.error.message}", style="red"))
            if done.error.hint:
                self._print(Text(f"hint:  {done.error.hint}"))
        if done.limit is not None:
            self._note(f"stopped at a limit: {done.limit}")
        took = words.between(self._began, self._at)
        self._note(f"{done.status.replace('_', ' ')} · {sums(done, took)}")

    def _under_way(self) -> RenderableType:
        shown: list[RenderableType] = []
        rest = self._heard[self._printed :]
        if rest.strip():
            shown.append(_markdown(_end_of(rest)))
        elif self._thinking:
            last = self._thinking.strip().splitlines()[-1:] or [""]
            shown.append(Text(f"thinking: {last[0][-160:]}", style="dim italic"))
        for call, output in self._calls.values():
            shown.append(
                Text.assemble(("●", "cyan"), f" {_name(call.name)} {told(call.arguments)}")
            )
            last = [line for line in output.splitlines() if line.strip()][-_FOLDED_LINES:]
            shown += [Text(f"  {line[:200]}", style="dim") for line in last]
        return Tail(Group(*shown, *self._end))

    def _so_far(self) -> str:
        passed = words.between(self._began, self._at) + monotonic() - self._seen
        clock = f"{passed:.0f} s" if passed < 60 else words.span(passed)
        return f"{clock}{self._used}"

    def _note(self, text: str) -> None:
        self._print(Text(text, style="dim"))

    def _print(self, text: Text) -> None:
        self._folds = True
        console = self._out if self._is_live else self._err
        console.print(text, soft_wrap=not self._is_live)

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _markdown(text: str) -> Markdown:
    """Text as Markdown. Where a link leads stands beside it: nobody opens one unseen."""
    whole = text.removesuffix("\r")  # half of a line's end may have come so far
    return Markdown(words.harmless(whole), hyperlinks=False)


def _folded(lines: list[str], *, from_end: bool) -> list[str]:
    """The first lines of a result; of a command the last, for there is what came of it."""
    shown = [line[:200] for line in (lines[-_FOLDED_LINES:] if from_end else lines[:_FOLDED_LINES])]
    if (more := len(lines) - len(shown)) == 0:
        return shown
    note = f"… {words.plural(more, 'more line')}"
    return [note, *shown] if from_end else [*shown, note]


def _end_of(text: str) -> str:
    """So much of its end as is drawn again and again; a fence that began before it is one still."""
    cut = max(len(text) - _DRAWN, 0)
    is_fenced = len(_FENCE.findall(text[:cut])) % 2
    return f"```\n{text[cut:]}" if is_fenced else text[cut:]


def _name(text: str) -> str:
    """The name of a tool, as a model wrote it, in one line."""
    return " ".join(text.split())[:_NAME]


def sums(done: Done, seconds: float) -> str:
    """What it took."""
    turns = f"{done.iterations} turn{'' if done.iterations == 1 else 's'}"
    return f"{words.span(seconds)} · {turns} · {taken(done.usage)}"
