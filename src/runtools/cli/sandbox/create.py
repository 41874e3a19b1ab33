"""``runtools sandbox create``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runtools.cli import output, words
from runtools.cli.output import Json
from runtools.cli.sandbox import options
from runtools.cli.session import connected

if TYPE_CHECKING:
    from runtools.sdk.sync.sandbox import Sandbox

_SIZE, _ACCESS, _WAIT = "Size and time", "Access", "Waiting"


def create(
    template: Annotated[
        str | None,
        typer.Option("--template", "-t", help="Slug or slug@version; default: base-debian."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Unique among living sandboxes.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="To find it by; repeatable.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="KEY=VALUE", help="Set for all inside; repeatable."),
    ] = None,
    project: Annotated[str | None, typer.Option(metavar="ID", help="Its project.")] = None,
    vcpus: Annotated[int, typer.Option(help="Processors.", rich_help_panel=_SIZE)] = 2,
    memory_mb: Annotated[int, typer.Option(help="Memory in MB.", rich_help_panel=_SIZE)] = 1024,
    disk_mb: Annotated[
        int, typer.Option(help="Disk in MB; takes what is written.", rich_help_panel=_SIZE)
    ] = 2048,
    idle_timeout: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", help="Pause when nothing happens; 0: never.", rich_help_panel=_SIZE
        ),
    ] = 600,
    max_lifetime: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS", help="Pause then in any case; default: never.", rich_help_panel=_SIZE
        ),
    ] = None,
    ssh_key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Public key that may log in; repeatable.", rich_help_panel=_ACCESS
        ),
    ] = None,
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", help="Read a login password from stdin.", rich_help_panel=_ACCESS
        ),
    ] = False,
    internet: Annotated[
        bool,
        typer.Option("--internet/--no-internet", help="DNS included.", rich_help_panel=_ACCESS),
    ] = True,
    require_isolation: Annotated[
        Literal["hardware", "emulated"] | None,
        typer.Option(help="Refuse anything less.", rich_help_panel=_ACCESS),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Return when it runs.", rich_help_panel=_WAIT),
    ] = True,
    queue: Annotated[
        bool,
        typer.Option(
            "--queue/--no-queue", help="Wait for room, or be refused.", rich_help_panel=_WAIT
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Create a sandbox; prints its id when it runs."""
    tags, variables = options.pairs("--tag", tag), options.pairs("--env", env)
    keys = [options.public_key(path) for path in ssh_key or ()]
    password = options.password_from_stdin() if password_stdin else None
    with connected() as rt, output.working(f"creating {name or 'a sandbox'}") as say:
        sandbox = rt.sandboxes.create(
            template,
            name=name,
            tags=tags,
            env=variables,
            ssh_keys=keys,
            password=password,
            idle_timeout_seconds=idle_timeout,
            max_lifetime_seconds=max_lifetime,
            vcpus=vcpus,
            memory_mb=memory_mb,
            disk_mb=disk_mb,
            internet=internet,
            require_isolation=require_isolation,
            project_id=project,
            wait_for_ready=wait,
            queue=queue,
            on_wait=lambda waiting: say(progress(waiting)),
        )
    output.show(sandbox.view, lambda: sandbox.id)
    if not output.is_json():
        output.note(outcome(sandbox))


def progress(sandbox: Sandbox) -> str:
    """What a sandbox that does not run yet is waiting for."""
    ref = sandbox.name or sandbox.id
    if sandbox.queue is None:
        return f"{ref} is starting"
    wait = words.span(sandbox.queue.estimated_wait_seconds)
    return f"{ref} waits for room: place {sandbox.queue.position} in the queue, about {wait}"


def outcome(sandbox: Sandbox) -> str:
    """How it came to run."""
    if sandbox.state != "running":
        return progress(sandbox) if sandbox.state == "creating" else f"it is {sandbox.state}"
    size = f"{sandbox.vcpus} vCPU, {words.megabytes(sandbox.memory_mb)}"
    took = f" after {words.span(sandbox.timings.total_ms / 1000)}" if sandbox.timings else ""
    origin = f", {words.ORIGINS[sandbox.started_from]}" if sandbox.started_from else ""
    return f"{sandbox.name or 'it'} runs{took}{origin}: {sandbox.template}, {size}"
