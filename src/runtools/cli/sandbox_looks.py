"""How sandboxes look, and what is in them: a list, all about one, its snapshots and processes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from runtools.cli import tables, words
from runtools.sdk import shapes

STATES = {"creating": "yellow", "running": "green", "paused": "cyan", "stopped": "bright_black"}


def state(view: shapes.Sandbox) -> Text:
    text = Text(view.state, style=STATES[view.state])
    if view.operation:
        text.append(f" ({view.operation.replace('_', ' ')})", style="yellow")
    return text


def sandboxes(views: Sequence[shapes.Sandbox]) -> RenderableType:
    """A list of sandboxes."""
    if not views:
        return Text("no sandboxes; `runtools sandbox create` makes one", style="bright_black")
    table = tables.table("NAME", "ID", "STATE", "TEMPLATE", "AGE", right=["AGE"])
    for view in views:
        made_from = f"{view.template}@{view.template_version}"
        age = words.age(view.created_at, datetime.now(UTC))
        table.add_row(view.name or "-", view.id, state(view), made_from, age)
    return table


def sandbox(view: shapes.Sandbox) -> RenderableType:
    """All about one sandbox."""
    title = Text.assemble((view.name or view.id, "bold"), "  ", state(view))
    size = (
        f"{view.vcpus} vCPU, {words.megabytes(view.memory_mb)} memory, "
        f"{words.megabytes(view.disk_mb)} disk"
    )
    facts = tables.facts(
        ("id", view.id),
        ("template", f"{view.template}@{view.template_version}"),
        ("size", size),
        ("isolation", view.isolation),
        ("internet", "open" if view.internet else "closed"),
        ("pauses", _pauses(view)),
        ("tags", ", ".join(f"{key}={value}" for key, value in view.tags.items()) or None),
        ("env", ", ".join(view.env_names) or None),
        ("forked from", view.parent_id),
        ("project", view.project_id),
        ("host", view.host_id),
        ("created", words.moment(view.created_at)),
        ("started", _start(view)),
        ("queue", _queue(view)),
        ("paused", _paused(view)),
        ("stopped", words.moment(view.stopped_at) if view.stopped_at else None),
        ("ended", words.harmless(view.ending.reason) if view.ending else None),
    )
    return Group(title, Padding(facts, (0, 0, 0, 2)))


def _pauses(view: shapes.Sandbox) -> str:
    idle, life = view.idle_timeout_seconds, view.max_lifetime_seconds
    parts = [f"after {words.span(idle)} idle"] if idle else ["never when idle"]
    if life:
        parts.append(f"after {words.span(life)} in any case")
    return ", ".join(parts)


def _start(view: shapes.Sandbox) -> str | None:
    if view.started_at is None:
        return None
    how = f", {words.ORIGINS[view.started_from]}" if view.started_from else ""
    took = f", in {words.span(view.timings.total_ms / 1000)}" if view.timings else ""
    return words.moment(view.started_at) + how + took


def _queue(view: shapes.Sandbox) -> str | None:
    if view.queue is None:
        return None
    return words.place(view.queue)


def _paused(view: shapes.Sandbox) -> str | None:
    if view.state != "paused" or view.paused_at is None:
        return None
    safe = "would survive a power loss" if view.durable else "not yet safe from a power loss"
    return f"{words.moment(view.paused_at)}, {safe}"


def snapshots(kept: Sequence[shapes.Snapshot]) -> RenderableType:
    """A sandbox's snapshots."""
    if not kept:
        return Text("no snapshots", style="bright_black")
    table = tables.table("NAME", "ID", "SIZE", "AGE", right=["SIZE", "AGE"])
    for one in kept:
        age = words.age(one.created_at, datetime.now(UTC))
        table.add_row(one.name or "-", one.id, words.size(one.size_bytes), age)
    return table


def processes(found: Sequence[shapes.Process]) -> RenderableType:
    """A table of durable processes."""
    table = tables.table("id", "state", "age", "command")
    now = datetime.now(UTC)
    for one in found:
        line = one.command if isinstance(one.command, str) else shlex.join(one.command)
        age = words.age(one.started_at, now)
        table.add_row(one.id, _ended(one), age, words.harmless(line))
    return table


def _ended(process: shapes.Process) -> str:
    if process.signal is not None:
        return f"signal {process.signal}"
    return process.state if process.exit_code is None else f"exit {process.exit_code}"
