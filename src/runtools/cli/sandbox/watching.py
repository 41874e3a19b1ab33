"""``runtools sandbox watch``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import output, words
from runtools.cli.output import Json
from runtools.cli.session import Ref, connected, flag

if TYPE_CHECKING:
    from runtools.sdk.shapes import FileChange


def watch(
    ref: Ref,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A folder in it.", show_default=False)
    ],
    flat: Annotated[bool, flag("--flat", help="Only what lies directly in it.")] = False,
    json: Json = False,
) -> None:
    """Print what changes below a folder as it happens, a line each, until Ctrl-C (exit code 130).

    create, change, delete PATH; move OLD -> NEW; overflow: changes were lost, look at the files again.
    Folders end in a slash. A paused sandbox is woken once, and may sleep again.
    """
    with connected() as rt, rt.sandboxes.get(ref).files.watch(path, recursive=not flat) as changes:
        output.note(f"watching {words.harmless_name(path)}")
        for change in changes:
            if output.is_json():
                output.item(change)
            else:
                output.line(_said(change))


def _said(change: FileChange) -> str:
    slash = "/" if change.is_directory and change.path != "/" else ""
    places = [place for place in (change.source, change.path) if place is not None]
    return f"{change.kind:<8}  " + " -> ".join(words.harmless_name(it) + slash for it in places)
