"""The tables of the command line: plain, and no wider than they must be."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table


def table(*columns: str, right: Sequence[str] = (), shrinks: Sequence[str] = ()) -> Table:
    """Columns under headings; those named in ``right`` are aligned so.

    Args:
        shrinks: those that are cut where there is no room, before any other is.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in ("WHAT", *shrinks),
        )
    return made


def facts(*rows: tuple[str, RenderableType | str | None]) -> Table:
    """A name and a value a line; what is None is left out."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    made.add_column(style="bright_black", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            made.add_row(name, value)
    return made
