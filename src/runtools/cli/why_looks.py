"""How a sandbox's story looks: what happened to it, and what ended it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runtools.cli import timeline, words
from runtools.cli.sandbox_looks import STATES, state
from runtools.sdk import shapes


def why(view: shapes.Sandbox, entries: Sequence[shapes.LedgerEntry]) -> RenderableType:
    """A sandbox's story."""
    title = Text.assemble(
        (view.name or view.id, "bold"),
        *([f"  {view.id}"] if view.name else []),
        f"  {view.template}@{view.template_version}  ",
        state(view),
    )
    parts: list[RenderableType] = [title, Text()]
    day = ""
    for step in timeline.steps(entries):
        if step.gap:
            parts.append(Text(f"{'':10}│  {step.gap} later", style="bright_black"))
        if (today := words.day(step.at)) != day:
            day = today
            parts.append(Text(day, style="bold bright_black"))
        parts.append(_step(step))
    parts.extend(_ending(view))
    return Group(*parts)


def _step(step: timeline.Step) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    text = Text(words.harmless(step.what))
    for note in step.notes:
        text.append(f"\n{words.harmless(note)}", style="bright_black")
    grid.add_row(words.clock(step.at), Text(step.mark, style=STATES[step.state]), text)
    return grid


def _ending(view: shapes.Sandbox) -> list[RenderableType]:
    ending = view.ending
    if ending is None:
        return []
    parts: list[RenderableType] = []
    if ending.memory_pressure:
        parts += [Text(), Text(f"memory: {words.harmless(ending.memory_pressure)}")]
    if ending.console_tail:
        parts += [Text(), Text("The last words on its console:", style="bold")]
        tail = "\n".join(words.harmless(line) for line in ending.console_tail)
        parts.append(Padding(Text(tail, style="bright_black"), (0, 0, 0, 2)))
    if ending.recoverable_until:
        until = words.moment(ending.recoverable_until)
        ref = view.name or view.id
        parts += [Text(), Text(f"Its disk is kept until {until}: runtools sandbox recover {ref}")]
    return parts
