"""``runtools usage``"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runtools.cli import output
from runtools.cli.output import Json, org_looks
from runtools.cli.session import connected, flag

if TYPE_CHECKING:
    from runtools.sdk.shapes.usage import UsageRow

_FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
_COLUMNS = (
    *("sandbox_id", "name", "project_id", "day"),
    *("running_ms", "vcpu_ms", "memory_mb_ms", "stored_mb_ms"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Organisation")(usage)


def usage(
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=_FORMS, metavar="TIME", help="UTC; default: this month's."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--to", formats=_FORMS, metavar="TIME", help="Exclusive; default: now."),
    ] = None,
    group: Annotated[
        Literal["sandbox", "project", "day", "org"],
        typer.Option(metavar="WHAT", help="A line per sandbox, project or day, or for the org."),
    ] = "sandbox",
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Only what lies in it now.")
    ] = None,
    csv: Annotated[bool, flag("--csv", help="Whole numbers, as comma-separated lines.")] = False,
    json: Json = False,
) -> None:
    """Show for how long sandboxes ran, and what they took on the disk."""
    with connected() as rt:
        found = list(rt.usage.list(since=since, until=until, group=group, project_id=project))
    if csv and not output.is_json():
        _export(found)
        return
    output.show(found, lambda: org_looks.usage(found))


def _export(rows: list[UsageRow]) -> None:
    output.line(",".join(_COLUMNS))
    for row in rows:
        # Ids, names of one's own and numbers: nothing in them needs quotes.
        values = (getattr(row, column) for column in _COLUMNS)
        output.line(",".join("" if value is None else str(value) for value in values))
