"""Commands that change what a sandbox is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runtools.cli import lazy, output, words
from runtools.cli.output import Json
from runtools.cli.sandbox import create, options, room
from runtools.cli.session import Ref, Refs, connected, flag

if TYPE_CHECKING:
    from runtools.cli import sandbox_looks as looks
else:
    looks = lazy.module("runtools.cli.sandbox_looks")


def pause(ref: Ref, json: Json = False) -> None:
    """Put a sandbox to sleep; its processes go on when it wakes."""
    with connected() as rt, output.working(f"pausing {ref}"):
        sandbox = rt.sandboxes.get(ref).pause()
    output.show(sandbox.view, lambda: f"{ref} is {sandbox.state}")


def resume(
    ref: Ref,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Wait so long for room; default: till there is."),
    ] = None,
    json: Json = False,
) -> None:
    """Wake a paused sandbox; where its host has no room for it, wait for that."""
    with connected() as rt, output.working(f"waking {ref}") as say:
        sandbox = rt.sandboxes.get(ref).resume(timeout_seconds=timeout, on_wait=room.telling(say))
    output.show(sandbox.view, lambda: f"{ref} is {sandbox.state}")


def destroy(refs: Refs, json: Json = False) -> None:
    """End sandboxes and remove their disks. Not to be undone."""
    with connected() as rt:
        found = [rt.sandboxes.get(ref) for ref in refs]
        for sandbox in found:
            with output.working(f"destroying {sandbox.name or sandbox.id}"):
                sandbox.destroy()
            if not output.is_json():
                output.line(f"{sandbox.name or sandbox.id} is destroyed")
    if output.is_json():
        views = [sandbox.view for sandbox in found]
        output.show(views[0] if len(views) == 1 else views, str)


def fork(
    ref: Ref,
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", metavar="NAME", help="The child's; several: name-1, name-2 …"),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-c", metavar="N", help="Children.")] = 1,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="The children's; default: the parent's."),
    ] = None,
    no_wait: Annotated[bool, flag("--no-wait", help="Return at once.")] = False,
    json: Json = False,
) -> None:
    """Copy a running or paused sandbox, memory and processes included; prints the children's ids."""
    tags = None if tag is None else options.pairs("--tag", tag)
    with connected() as rt, output.working(f"forking {ref}") as say:
        parent = rt.sandboxes.get(ref)
        children = parent.fork(
            count,
            name=name,
            tags=tags,
            wait_for_ready=not no_wait,
            on_wait=room.telling(say),
        )
    output.show(children.view, lambda: "\n".join(child.id for child in children))
    if not output.is_json():
        stood = words.span(children.standstill_ms / 1000)
        output.note(
            f"{words.plural(len(children), 'copy', 'copies')} of {ref}; it stood still {stood}"
        )


def recover(
    ref: Ref,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="The new one's name.")
    ] = None,
    json: Json = False,
) -> None:
    """Boot a new sandbox from the disk of one that ended by itself, or is paused; prints the new id.

    A paused one stays as it is: the way to its files when its saved state cannot be loaded any more.
    """
    with connected() as rt, output.working(f"recovering {ref}"):
        sandbox = rt.sandboxes.get(ref).recover(name=name)
    output.show(sandbox.view, lambda: sandbox.id)
    if not output.is_json():
        output.note(create.outcome(sandbox))


def snapshot(
    ref: Ref,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="To roll back to.")
    ] = None,
    json: Json = False,
) -> None:
    """Keep a sandbox's present state; it goes on as it was."""
    with connected() as rt, output.working(f"keeping the state of {ref}"):
        kept = rt.sandboxes.get(ref).snapshot(name)
    output.show(kept, lambda: kept.id)
    if not output.is_json():
        stood = words.span(kept.standstill_ms / 1000)
        output.note(
            f"{kept.name or 'kept'}: {words.size(kept.size_bytes)}; {ref} stood still {stood}"
        )


def snapshots(
    ref: Ref,
    delete: Annotated[
        str | None, typer.Option(metavar="SNAPSHOT", help="Delete this one, by id or name.")
    ] = None,
    json: Json = False,
) -> None:
    """List a sandbox's snapshots, or delete one."""
    with connected() as rt:
        sandbox = rt.sandboxes.get(ref)
        if delete is not None:
            sandbox.delete_snapshot(delete)
        kept = sandbox.snapshots()
    output.show(kept, lambda: looks.snapshots(kept))


def rollback(
    ref: Ref,
    to: Annotated[str, typer.Option("--to", metavar="SNAPSHOT", help="Its id or name.")],
    json: Json = False,
) -> None:
    """Go back to a snapshot; what happened since is lost."""
    with connected() as rt, output.working(f"rolling {ref} back to {to}"):
        sandbox = rt.sandboxes.get(ref).rollback(to)
    output.show(sandbox.view, lambda: f"{ref} is back at {to}, {sandbox.state}")
