"""What the folder that a command is called in says: which platform is meant, and in which project a slug is
sought.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy
from runtools.errors import NotFound

if TYPE_CHECKING:
    from runtools.project import folder
else:
    folder = lazy.module("runtools.project.folder")


InProject = Annotated[
    str | None,
    typer.Option("--project", metavar="PROJECT", help="By id or name; default: the folder's."),
]


@contextmanager
def project(named: str | None, ref: str) -> Iterator[str | None]:
    """The project that is named, else the folder's; None: any that has the slug.

    What is not found in the folder's says where that was sought.

    Args:
        ref: what is sought. An id, which no slug looks like, is found wherever it is.

    Raises:
        InvalidRequest: the folder's settings are malformed.
    """
    if named is not None or "_" in ref:
        yield named
        return
    found = _folder()
    if found is None or found.settings.project is None:
        yield None
        return
    try:
        yield found.settings.project
    except NotFound as error:
        file = found.root / folder.CONFIG
        said = f"{file} says that it is sought in project {found.settings.project}"
        error.hint = f"{said}; `runtools deploy` brings it there, --project names another"
        raise


def platform() -> str | None:
    """The address of the platform that the folder's project lies on, where it says so.

    Raises:
        InvalidRequest: the folder's settings are malformed.
    """
    found = _folder()
    return None if found is None else found.settings.api_url


def _folder() -> folder.Folder | None:
    try:
        return folder.find(Path.cwd(), past_closed=True)
    except (NotFound, OSError):
        return None
