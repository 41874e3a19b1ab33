"""What of a run is under way, as it is drawn again and again below what stands there for good."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text


class Tail:
    """The end of what is longer than the screen: there is what is being written."""

    def __init__(self, what: RenderableType) -> None:
        self._what = what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What there is room for."""
        lines = console.render_lines(self._what, options.update(height=None), pad=False)
        for line in lines[-max(options.size.height - 1, 1) :]:
            yield from line
            yield Segment.line()


class Clock:
    """How far it is, told anew each time it is drawn: time passes where nothing comes, too."""

    def __init__(self, tell: Callable[[], str]) -> None:
        self._tell = tell
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The spinner, and what it says."""
        self._spinner.text = Text(self._tell(), style="dim")
        yield self._spinner
