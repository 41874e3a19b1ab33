"""What of a run is under way, as it is drawn again and again below what stands there for good."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

_TIMES_A_SECOND = 12


@contextmanager
def drawn(console: Console, turn: threading.RLock) -> Iterator[Live]:
    """Draw what the yielded `Live` is given, as long as this lasts.

    Args:
        turn: held whenever something is drawn; whoever prints above it has to hold it, too. A thread of
            `Live`'s own would come in between a print's look at the screen and its writing.
    """
    ended = threading.Event()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def draw() -> None:
            while not ended.wait(1 / _TIMES_A_SECOND):
                with turn:
                    live.refresh()

        thread = threading.Thread(target=draw, daemon=True)
        thread.start()
        try:
            yield live
        finally:
            ended.set()
            thread.join()


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


class Block:
    """What is printed without the empty lines that it begins and ends with."""

    def __init__(self, what: RenderableType) -> None:
        self._what = what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        lines = console.render_lines(self._what, options.update(height=None), pad=False)
        told = [n for n, line in enumerate(lines) if not all(map(_is_empty, line))]
        for line in lines[told[0] : told[-1] + 1] if told else []:
            yield from line
            yield Segment.line()


def _is_empty(piece: Segment) -> bool:
    coloured = piece.style is not None and piece.style.bgcolor is not None
    return not coloured and not piece.text.strip()


class Clock:
    """How far it is, told anew each time it is drawn: time passes where nothing comes, too."""

    def __init__(self, tell: Callable[[], str]) -> None:
        self._tell = tell
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The spinner, and what it says."""
        self._spinner.text = Text(self._tell(), style="dim")
        yield self._spinner
