"""``runtools template …``"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, output, words
from runtools.cli.output import Json, screen
from runtools.cli.session import Slug, connected, flag
from runtools.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtools import RunTools
    from runtools.cli import template_looks as looks
    from runtools.sdk.shapes import BuildLine, Template
else:
    looks = lazy.module("runtools.cli.template_looks")

app = typer.Typer(
    help="What sandboxes are made from: build, look at, delete.", no_args_is_help=True
)

_LEFT = 130

Version = Annotated[
    int | None,
    typer.Option("--version", metavar="N", help="One version; default: the newest."),
]


@app.command()
def build(
    slug: Slug,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What it starts from; default: what the slug names."),
    ] = None,
    apt: Annotated[
        list[str] | None, typer.Option(metavar="PACKAGE", help="To add; repeatable.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A script, run as root at the end.")
    ] = None,
    no_wait: Annotated[bool, flag("--no-wait", help="Do not follow the build.")] = False,
    json: Json = False,
) -> None:
    """Build the next version of a template, and follow it; Ctrl-C leaves it to itself."""
    script = None if run is None else _script(run)
    with connected() as rt:
        built = rt.templates.build(slug, recipe=recipe, apt=apt or [], run=script, wait=False)
        if not no_wait:
            built = _followed(rt, built)
    if output.is_json():
        output.item(built)
    elif not no_wait:
        output.line(f"{built.slug}@{built.version} is ready: {words.size(built.size_bytes)}")
    else:
        output.line(f"{built.slug}@{built.version}")
        output.note(f"building; `runtools template logs {_version(built)}` follows it")


def _followed(rt: RunTools, begun: Template) -> Template:
    """Show a build to its end. Who breaks off is told that it goes on, and how to end it."""
    try:
        with _progress(begun.slug) as on_line:
            return rt.templates.wait(begun.slug, begun.version, on_line=on_line)
    except KeyboardInterrupt:
        output.note(
            f"\n{begun.slug}@{begun.version} is built on: `runtools template logs {_version(begun)}` "
            f"follows it, `runtools template delete {_version(begun)}` ends it"
        )
        raise typer.Exit(_LEFT) from None


def _version(built: Template) -> str:
    return f"{built.slug} --version {built.version}"


def _script(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"{path}: {exc}") from None


@contextmanager
def _progress(slug: str) -> Iterator[Callable[[BuildLine], None]]:
    if output.is_json():
        yield output.item
    elif sys.stderr.isatty():
        with screen.build_bar(slug) as advance:
            yield lambda line: advance(line.progress, line.step, words.harmless(line.text))
    else:
        yield lambda line: output.note(f"{line.progress:4.0%} {words.harmless(line.text)}")


@app.command("list")
def list_(json: Json = False) -> None:
    """List the templates, each with its newest version."""
    with connected() as rt:
        found = rt.templates.list()
    output.show(found, lambda: looks.templates(found))


@app.command()
def show(slug: Slug, json: Json = False) -> None:
    """Show a template and its versions."""
    with connected() as rt:
        versions = rt.templates.versions(slug)
    output.show(versions, lambda: looks.template(versions))


@app.command()
def logs(slug: Slug, version: Version = None, json: Json = False) -> None:
    """Show a build's log; follows it while the build goes on."""
    with connected() as rt:
        for entry in rt.templates.logs(slug, version):
            if output.is_json():
                output.item(entry)
            else:
                output.line(words.harmless(entry.text))


@app.command()
def delete(slug: Slug, version: Version = None, json: Json = False) -> None:
    """Delete a template, or one version, and end its build; refused while sandboxes or snapshots use it."""
    with connected() as rt:
        gone = rt.templates.delete(slug, version)
    output.show(gone, lambda: _deleted(slug, version, gone))


def _deleted(slug: str, version: int | None, gone: Sequence[Template]) -> str:
    said = f"{slug}{f'@{version}' if version else ''} is deleted"
    ended = [f"{one.slug}@{one.version}" for one in gone if one.step == "deleted"]
    return f"{said}; {', '.join(ended)} is built no more" if ended else said
