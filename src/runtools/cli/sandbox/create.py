"""``runtools sandbox create``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runtools.cli import output, words
from runtools.cli.output import Json
from runtools.cli.sandbox import options
from runtools.cli.sandbox.egress import ALLOW_HELP, DENY_HELP
from runtools.cli.sandbox.room import progress, telling
from runtools.cli.session import connected, flag

if TYPE_CHECKING:
    from runtools.sdk.sync.sandbox import Sandbox

# Said here again, because importing the shapes takes longer than all the rest; a test compares.
DEFAULT_VCPUS, DEFAULT_DISK_MB = 2, 2048
DEFAULT_IDLE_TIMEOUT_SECONDS = 600

_SIZE, _ACCESS, _WAIT = "Size and time", "Access", "Waiting"


def create(
    template: Annotated[
        str | None,
        typer.Option(
            "--template", "-t", metavar="SLUG", help="Or slug@version; default base-debian."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Unique among the living.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="To find it by; repeatable.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="KEY=VALUE", help="Set for all inside; repeatable."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A secret to set in the environment; repeatable."),
    ] = None,
    project: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Its project, by id or name.")
    ] = None,
    vcpus: Annotated[
        int, typer.Option(metavar="N", help="Processors.", rich_help_panel=_SIZE)
    ] = DEFAULT_VCPUS,
    memory_mb: Annotated[
        int | None,
        typer.Option(
            metavar="MB",
            help="Memory.",
            show_default="1024, a desktop's 2048",
            rich_help_panel=_SIZE,
        ),
    ] = None,
    disk_mb: Annotated[
        int, typer.Option(metavar="MB", help="Takes what is written.", rich_help_panel=_SIZE)
    ] = DEFAULT_DISK_MB,
    idle_timeout: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", help="Pause when idle so long; 0: never.", rich_help_panel=_SIZE
        ),
    ] = DEFAULT_IDLE_TIMEOUT_SECONDS,
    max_lifetime: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS", help="Pause then in any case; default never.", rich_help_panel=_SIZE
        ),
    ] = None,
    ssh_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|LABEL",
            help="Public key that may log in, or a registered one; repeatable.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    password_stdin: Annotated[
        bool,
        flag("--password-stdin", help="Read a login password from stdin.", panel=_ACCESS),
    ] = False,
    no_internet: Annotated[
        bool, flag("--no-internet", help="Close everything, DNS included.", panel=_ACCESS)
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE", help=f"Reach only this: {ALLOW_HELP}", rich_help_panel=_ACCESS
        ),
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help=DENY_HELP, rich_help_panel=_ACCESS)
    ] = None,
    require_isolation: Annotated[
        Literal["hardware", "emulated"] | None,
        typer.Option(metavar="KIND", help="hardware: not emulated.", rich_help_panel=_ACCESS),
    ] = None,
    dev_urls: Annotated[
        Literal["public", "private"] | None,
        typer.Option(
            help="Who may enter its ports by their URLs; default: the org's choice.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    no_wait: Annotated[
        bool, flag("--no-wait", help="Return at once, still creating.", panel=_WAIT)
    ] = False,
    no_queue: Annotated[
        bool, flag("--no-queue", help="Be refused when there is no room.", panel=_WAIT)
    ] = False,
    json: Json = False,
) -> None:
    """Create a sandbox; prints its id when it runs."""
    tags, variables = options.pairs("--tag", tag), options.pairs("--env", env)
    keys = [options.key_or_label(text) for text in ssh_key or ()]
    password = options.password_from_stdin() if password_stdin else None
    with connected() as rt, output.working(f"creating {name or 'a sandbox'}") as say:
        sandbox = rt.sandboxes.create(
            template,
            name=name,
            tags=tags,
            env=variables,
            secrets=secret or [],
            ssh_keys=keys,
            password=password,
            idle_timeout_seconds=idle_timeout,
            max_lifetime_seconds=max_lifetime,
            vcpus=vcpus,
            memory_mb=memory_mb,
            disk_mb=disk_mb,
            internet=not no_internet,
            egress={"allow": allow or ["*"], "deny": deny or []} if allow or deny else None,
            require_isolation=require_isolation,
            dev_urls=dev_urls,
            project_id=project,
            wait_for_ready=not no_wait,
            queue=not no_queue,
            on_wait=telling(say),
        )
    output.show(sandbox.view, lambda: sandbox.id)
    if not output.is_json():
        output.note(outcome(sandbox))


def outcome(sandbox: Sandbox) -> str:
    """How it came to run."""
    if sandbox.state != "running":
        return progress(sandbox) if sandbox.state == "creating" else f"it is {sandbox.state}"
    size = f"{sandbox.vcpus} vCPU, {words.megabytes(sandbox.memory_mb)}"
    took = f" after {words.span(sandbox.timings.total_ms / 1000)}" if sandbox.timings else ""
    origin = f", {words.ORIGINS[sandbox.started_from]}" if sandbox.started_from else ""
    return f"{sandbox.name or 'it'} runs{took}{origin}: {sandbox.template}, {size}"
