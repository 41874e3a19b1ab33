"""What goes where: data to stdout, everything else (progress, messages, errors) to stderr.

With ``--json`` stdout carries the API's ``data`` alone: one document, or one object a line for
streams.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, words
from runtools.errors import Conflict, RunToolsError
from runtools.sdk.lines import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from runtools.cli import org_looks, screen
    from runtools.sdk.shapes import Shape
else:
    org_looks = lazy.module("runtools.cli.org_looks")
    screen = lazy.module("runtools.cli.screen")

__all__ = [
    "Json",
    "fail",
    "is_json",
    "item",
    "line",
    "note",
    "org_looks",
    "screen",
    "show",
    "show_lines",
    "show_once",
    "working",
]

_as_json = False


def _use_json(value: bool) -> bool:
    global _as_json  # noqa: PLW0603 - one process, one command, one way to speak
    _as_json = _as_json or value
    return value


Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_use_json,
        is_eager=True,
        metavar="",
        help="Print the API's data as JSON on stdout.",
    ),
]


def is_json() -> bool:
    """Whether the caller wants JSON."""
    return _as_json


def show(data: Shape | Sequence[Shape] | None, look: Callable[[], RenderableType | str]) -> None:
    """A command's result: as JSON, or as it looks to people."""
    if _as_json:
        line(_document(data))
    else:
        screen.draw(look())


def show_once(
    data: Shape,
    ref: str,
    what: str,
    secret: str | None,
    hint: str,
    look: Callable[[], RenderableType | str] | None = None,
) -> None:
    """The result of a command that makes a secret, which is shown if nothing else is.

    Only the answer that makes it holds it, and its repeat does not.

    Raises:
        Conflict: the thing is there (as JSON it is printed), and the answer that held the secret was lost.
    """
    if secret is not None:
        show(data, look or (lambda: secret))
        return
    if _as_json:
        line(_document(data))
    raise Conflict(f"{ref} was made, but the answer that held the {what} was lost", hint=hint)


def item(data: Shape) -> None:
    """One object of a stream, as one line of JSON."""
    line(_document(data))


def show_lines(texts: Sequence[str]) -> None:
    """Lines of text: as a JSON list, or as they are."""
    if _as_json:
        line(json.dumps(texts))
        return
    for text in texts:
        line(text)


def _document(data: Shape | Sequence[Shape] | None) -> str:
    if data is None:
        return "null"
    if isinstance(data, Sequence):
        return "[" + ",".join(map(_document, data)) + "]"
    return one_line(data.model_dump_json())


def line(text: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A message to the person, on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """Say what is being waited for; yields a function that says it anew. Nothing without a terminal."""
    if _as_json or not sys.stderr.isatty():
        yield lambda _: None
        return
    with screen.spinner(text) as update:
        yield update


def fail(error: RunToolsError) -> None:
    """Say what went wrong, and what to do next."""
    if _as_json:
        sys.stderr.write(json.dumps({"error": error.to_wire()}, default=str) + "\n")
        return
    lines = [f"error: {error.message}"]
    if error.hint:
        lines.append(f"hint:  {error.hint}")
    for text in map(words.harmless, lines):  # it may quote whoever was asked
        if sys.stderr.isatty():
            screen.complain(text)
        else:
            note(text)
