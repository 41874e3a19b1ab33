"""``runtools sandbox cp``"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import output, words
from runtools.cli.output import screen
from runtools.cli.sandbox.room import when_there_is_room
from runtools.cli.session import connected
from runtools.errors import FileMissing, InvalidRequest

if TYPE_CHECKING:
    from runtools.sdk.local import Transfer
    from runtools.sdk.sync.sandbox import Sandbox

Progress = Callable[[int], None]


def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A path, or SANDBOX:/path.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="A path, or SANDBOX:/path.")],
) -> None:
    """Copy a file or a whole folder into a sandbox or out of it, as `cp -r` would.

    A folder that is there gets the copy inside it. A local path with a colon is written ./a:b.
    """
    here, there = _side(source), _side(target)
    if (here is None) == (there is None):
        raise InvalidRequest(
            "one side must be in a sandbox, and only one",
            hint="runtools sandbox cp a.txt web:/workspace/",
        )
    with connected() as rt:
        if there is not None:
            sandbox, path = rt.sandboxes.get(there[0]), there[1]
            when_there_is_room(sandbox, lambda: _send(sandbox, Path(source), path))
        elif here is not None:
            sandbox, path = rt.sandboxes.get(here[0]), here[1]
            when_there_is_room(sandbox, lambda: _fetch(sandbox, path, target))


def _side(text: str) -> tuple[str, str] | None:
    """Sandbox and path of ``web:/path``; None for a path of this machine."""
    ref, colon, path = text.partition(":")
    if not colon or "/" in ref or not ref:
        return None
    if not path.startswith("/"):
        raise InvalidRequest(
            f"{text!r}: a path in a sandbox is absolute", hint=f"{ref}:/workspace/…"
        )
    return ref, path


def _send(sandbox: Sandbox, source: Path, target: str) -> None:
    if not source.exists():
        raise InvalidRequest(f"{source}: no such file or folder")
    if not target.endswith("/") and _is_folder(sandbox, target):
        target += "/"
    total = None if source.is_dir() else source.stat().st_size
    with _bar(source.name, total) as progress:
        done = sandbox.files.upload(source, target, on_progress=progress)
    _tell_skipped(done)


def _is_folder(sandbox: Sandbox, path: str) -> bool:
    try:
        return sandbox.files.stat(path).kind == "directory"
    except FileMissing:
        return False


def _fetch(sandbox: Sandbox, source: str, target: str) -> None:
    entry = sandbox.files.stat(source)
    if not target.endswith("/") and Path(target).is_dir():
        target += "/"
    total = None if entry.kind == "directory" else entry.size
    with _bar(entry.path.rpartition("/")[2], total) as progress:
        done = sandbox.files.download(source, target, on_progress=progress)
    _tell_skipped(done)


def _tell_skipped(done: Transfer) -> None:
    for skipped in done.skipped:
        output.note(f"left out: {words.harmless(skipped.path)}: {words.harmless(skipped.why)}")


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Progress | None]:
    if sys.stderr.isatty():
        with screen.transfer_bar(words.harmless(title), total) as progress:
            yield progress
    else:
        yield None
