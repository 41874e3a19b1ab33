"""The terminal: consoles with colour only where somebody looks, spinners, progress bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

_WIDE = 4000  # without a terminal nothing is cut or wrapped: others read it


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def draw(what: RenderableType | str) -> None:
    """Onto stdout, without the spaces that tables end their lines with."""
    console = _console()
    if console.is_terminal:
        console.print(what)
        return
    with console.capture() as captured:
        console.print(what)
    text = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
    sys.stdout.write(text)
    sys.stdout.flush()


def complain(text: str) -> None:
    """A line of an error, its first word in colour."""
    word, _, rest = text.partition(" ")
    style = "bold red" if word == "error:" else "cyan"
    _console(stderr=True).print(Text.assemble((word, style), " ", rest))


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Something is going on."""
    with _console(stderr=True).status(Text(text), spinner="dots") as status:
        yield lambda anew: status.update(Text(anew))


@contextmanager
def build_bar(title: str) -> Iterator[Callable[[float, str, str], None]]:
    """A build: the log scrolls above a bar. Yields ``advance(fraction, step, line)``."""
    console = _console(stderr=True)
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=1.0, step="")

        def advance(fraction: float, step: str, line: str) -> None:
            progress.update(task, completed=fraction, step=step[:36])
            if line:
                progress.console.print(Text(line, style="dim"), soft_wrap=True)

        yield advance


@contextmanager
def transfer_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A transfer: yields a function that takes how many bytes are done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=_console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)
