"""How templates and their versions look."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from runtools.cli import tables, words
from runtools.sdk import shapes


def templates(found: Sequence[shapes.Template]) -> RenderableType:
    """A list of templates."""
    if not found:
        return Text(
            "no templates; `runtools template build base-debian` makes one", style="bright_black"
        )
    table = tables.table(
        "TEMPLATE", "VERSION", "STATE", "SIZE", "AGE", "NOTE", right=["VERSION", "SIZE", "AGE"]
    )
    for one in found:
        notes = [
            *(["default"] if one.is_default else []),
            *(["the platform's"] if not one.is_own else []),
            *(["untested"] if not one.tested else []),
            *([f"{one.progress:.0%} {one.step}"] if one.state == "building" else []),
        ]
        table.add_row(one.slug, str(one.version), *_build(one), ", ".join(notes))
    return table


def template(versions: Sequence[shapes.Template]) -> RenderableType:
    """A template's versions."""
    if not versions:
        return Text("no versions", style="bright_black")
    first = versions[0]
    table = tables.table(
        "VERSION", "STATE", "SIZE", "AGE", "ERROR", right=["VERSION", "SIZE", "AGE"]
    )
    for one in versions:
        table.add_row(str(one.version), *_build(one), words.harmless(one.error or ""))
    title = Text.assemble((first.slug, "bold"), f"  recipe {first.recipe}")
    if not first.tested:
        title.append("  untested", style="yellow")
    return Group(title, Text(), table)


def _build(one: shapes.Template) -> tuple[Text, str, str]:
    style = {"ready": "green", "building": "yellow", "failed": "red"}[one.state]
    size = words.size(one.size_bytes) if one.size_bytes else "-"
    return Text(one.state, style=style), size, words.age(one.created_at, datetime.now(UTC))
