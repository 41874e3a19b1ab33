"""How plans and deploys look to people."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic.alias_generators import to_snake
from rich.console import Group, RenderableType
from rich.text import Text

from runtools.cli import words
from runtools.cli.tables import facts, table
from runtools.sdk.shapes.deploys import Change, Commit, Deploy, FieldChange, Plan

_SIGNS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "replace": ("-/+", "bold red"),
    "delete": ("-", "red"),
}
_VERBS = {"create": "created", "update": "updated", "replace": "replaced", "delete": "deleted"}
_STATES = {"running": "yellow", "done": "green", "failed": "red"}
_FAINT = "bright_black"
_WIDEST, _LONG = 76, 60


def plan(shown: Plan) -> RenderableType:
    """A plan, field by field."""
    head = Text.assemble(("project ", _FAINT), (shown.project, "bold"))
    if shown.makes_project:
        head.append("  new: the deploy makes it", style="green")
    lines: list[RenderableType] = [head, Text()]
    if not shown.changes:
        return Group(head, Text("nothing changes: what stands is what the files say", _FAINT))
    for change in shown.changes:
        lines += [_title(change), *_fields(change)]
    lines += [Text(), _sum(shown.changes)]
    lines += [Text(f"note: {words.harmless(note)}", style="cyan") for note in shown.notes]
    return Group(*lines)


def done(change: Change) -> RenderableType:
    """A change that has been carried out."""
    return Text.assemble(
        ("✓ ", "bold green"), f"{change.kind} ", (change.slug, "bold"), f" {_VERBS[change.action]}"
    )


def next_of(deploy: Deploy) -> str:
    """What a deploy is at."""
    if deploy.done >= len(deploy.changes):
        return deploy.id
    change = deploy.changes[deploy.done]
    return f"{change.action} {change.kind} {change.slug} ({deploy.done + 1}/{len(deploy.changes)})"


def ended(deploy: Deploy) -> RenderableType:
    """How a deploy ended, in a line."""
    count = f"{deploy.done} of {words.plural(len(deploy.changes), 'change')}"
    return Text.assemble((deploy.state, _STATES[deploy.state]), f"  {deploy.id}  {count}")


def output(text: str) -> str:
    """What a command of `setup` said at last."""
    return "\n".join(f"    {line}" for line in words.harmless(text).splitlines())


def deploys(found: Sequence[Deploy]) -> RenderableType:
    """Deploys, a line each."""
    if not found:
        return Text("no deploys; `runtools deploy` makes one", style=_FAINT)
    made = table("ID", "PROJECT", "STATE", "CHANGES", "COMMIT", "BY", "WHEN")
    for one in found:
        state = Text(one.state, style=_STATES[one.state])
        count = f"{one.done}/{len(one.changes)}"
        when = words.moment(one.created_at)
        made.add_row(one.id, one.project, state, count, commit(one.commit), one.actor, when)
    return made


def deploy(one: Deploy) -> RenderableType:
    """A deploy with all that it changed."""
    rows = facts(
        ("id", one.id),
        ("project", one.project),
        ("state", Text(one.state, style=_STATES[one.state])),
        ("by", one.actor),
        ("commit", commit(one.commit)),
        ("begun", words.moment(one.created_at)),
        ("ended", words.moment(one.ended_at)),
        ("error", None if one.error is None else Text(words.harmless(one.error.message), "red")),
    )
    lines: list[RenderableType] = [rows, Text()]
    for n, change in enumerate(one.changes):
        title = _title(change)
        title.append("" if n < one.done else "  not done", style="red")
        lines += [title, *_fields(change)]
    return Group(*lines)


def commit(at: Commit | None) -> str:
    """A commit in short; a star where the files differed from it."""
    return "-" if at is None else f"{at.id[:10]}{'*' if at.dirty else ''}"


def _title(change: Change) -> Text:
    sign, style = _SIGNS[change.action]
    made = Text.assemble((f"{sign:>3} ", style), f"{change.kind:<8} ", (change.slug, "bold"))
    if change.loses_data:
        made.append("  all its data is lost", style="bold red")
    return made


def _sum(changes: Sequence[Change]) -> Text:
    made = Text()
    for action, (_, style) in _SIGNS.items():
        count = sum(change.action == action for change in changes)
        if count:
            made.append(", " if made else "")
            made.append(f"{count} to {action}", style=style)
    return made


def _fields(change: Change) -> Iterator[RenderableType]:
    rows = [one for one in change.fields if change.action != "create" or _says(one)]
    width = max((len(to_snake(one.field)) for one in rows), default=0)
    for one in rows:
        name = f"        {to_snake(one.field):<{width}}  "
        if change.action == "create":
            yield Text.assemble((name, _FAINT), _short(one, one.new))
        elif _is_long(one):
            yield Text(name.rstrip(), style=_FAINT)
            yield from _diff(_lines(one.old), _lines(one.new))
        else:
            old, new = _short(one, one.old), _short(one, one.new)
            yield Text.assemble((name, _FAINT), (old, "red"), " → ", (new, "green"))


def _says(one: FieldChange) -> bool:
    """Whether it is worth a line of what is new: not what it is called, and not nothing."""
    return one.field not in ("slug", "name") and one.new not in (None, "", [], {}, False)


def _is_long(one: FieldChange) -> bool:
    return any(
        isinstance(value, str) and ("\n" in value or len(value) > _LONG)
        for value in (one.old, one.new)
    ) or (one.field == "setup")


def _lines(value: Any) -> list[str]:
    return (
        [str(line) for line in value] if isinstance(value, list) else str(value or "").split("\n")
    )


def _diff(old: Sequence[str], new: Sequence[str]) -> Iterator[Text]:
    for line in difflib.unified_diff(old, new, n=1, lineterm=""):
        if line.startswith(("---", "+++", "@@")):
            continue
        style = {"+": "green", "-": "red"}.get(line[:1], _FAINT)
        told = words.harmless(f"{line[:1]} {line[1:]}").replace("\n", "\n            ")
        yield Text(f"          {told}", style=style)


def _short(one: FieldChange, value: Any) -> str:
    if value is None:
        text = "none"
    elif one.field == "source":
        text = f"{', '.join(value['files'])} ({value['digest'][:10]})"
    elif isinstance(value, list | dict) and not value:
        text = "none"
    elif one.field == "actions" or (isinstance(value, list) and one.field != "setup"):
        text = ", ".join(map(str, value))
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False)
    text = words.harmless(text).replace("\n", " ")
    text = text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
    return f"{text} (values are not shown)" if one.private else text
