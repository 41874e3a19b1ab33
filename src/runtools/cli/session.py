"""What commands share: a client, and the parameters that many of them take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

import runtools
from runtools.cli import here, output
from runtools.errors import RunToolsError, Unauthenticated
from runtools.sdk import settings

if TYPE_CHECKING:
    from runtools import RunTools

RETRY_SECONDS = 20.0  # enough for a platform that is just restarting, on a busy machine too


def flag(*names: str, help: str, panel: str | None = None) -> Any:  # noqa: A002 - typer's word
    """An option that is given or not: there is no value to name in the help."""
    return typer.Option(*names, help=help, metavar="", rich_help_panel=panel)


def acting() -> settings.Settings:
    """On which platform commands act, and with which key: one rule for all of them, in any folder."""
    return settings.resolve(folder=here.platform)


@contextmanager
def connected() -> Iterator[RunTools]:
    """A client of the platform that the settings name."""
    found, told = acting(), False

    def waiting(trouble: RunToolsError) -> None:
        nonlocal told
        if not told:
            told = True
            output.note(f"{trouble.message}; trying for {RETRY_SECONDS:.0f} s, Ctrl-C ends")

    with runtools.RunTools(
        found.api_key, found.url, retry_seconds=RETRY_SECONDS, waiting=waiting
    ) as rt:
        try:
            yield rt
        except Unauthenticated as error:
            _say_whose(rt, found, error)
            raise


def _say_whose(rt: RunTools, kept: settings.Settings, error: Unauthenticated) -> None:
    """Say so where the key is another platform's: one that had this address before, or has it now."""
    with suppress(RunToolsError):
        there = rt.health().install_id
        if kept.install_id not in (None, there):
            error.message = (
                f"the platform at {rt.url} is {there}, and the key in {kept.source} belongs to"
                f" {kept.install_id}"
            )
            error.hint = (
                "RUNTOOLS_HOME says whose home it is; `runtools login` signs in to this one"
            )


def _at_once() -> RunTools:
    """A client that a shell asks while somebody types."""
    found = acting()
    return runtools.RunTools(found.api_key, found.url, retry_seconds=0)


def _complete_sandbox(incomplete: str) -> list[str]:
    try:
        with _at_once() as rt:
            living = [sb for sb in rt.sandboxes.list() if sb.state != "stopped"]
    except RunToolsError:
        return []  # a shell that completes must not print errors
    return [ref for sb in living for ref in (sb.name, sb.id) if ref and ref.startswith(incomplete)]


def _complete_template(incomplete: str) -> list[str]:
    try:
        with _at_once() as rt:
            found = rt.templates.list()
    except RunToolsError:
        return []
    return [template.slug for template in found if template.slug.startswith(incomplete)]


Ref = Annotated[
    str,
    typer.Argument(
        metavar="SANDBOX",
        help="Its id or name.",
        autocompletion=_complete_sandbox,
        show_default=False,
    ),
]
Refs = Annotated[
    list[str],
    typer.Argument(
        metavar="SANDBOX...",
        help="Ids or names.",
        autocompletion=_complete_sandbox,
        show_default=False,
    ),
]
Slug = Annotated[
    str,
    typer.Argument(
        metavar="TEMPLATE",
        help="Its slug, e.g. base-debian.",
        autocompletion=_complete_template,
        show_default=False,
    ),
]
