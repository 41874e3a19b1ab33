"""How an org's own things look to people: projects."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from runtools.cli import tables
from runtools.sdk.shapes.projects import Project


def projects(found: Sequence[Project]) -> RenderableType:
    """Projects, a line each, in their colours."""
    table = tables.table("NAME", "ID", "SANDBOXES", "API KEYS", right=["SANDBOXES", "API KEYS"])
    for one in found:
        name = Text(one.name, style=one.color or "")
        if one.is_default:
            name.append(" (default)", style="bright_black")
        lies = one.contents
        table.add_row(name, one.id, str(lies.sandboxes), str(lies.api_keys))
    return table
