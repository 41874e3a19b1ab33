"""``runtools agent run|chat``, ``runtools runs …`` and ``runtools threads …``: agents at work."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from runtools.cli import here, lazy, objects, output, stdin
from runtools.cli.output import Json
from runtools.cli.session import connected, flag
from runtools.errors import InvalidRequest

if TYPE_CHECKING:
    from runtools import RunTools
    from runtools.cli import deciding, run_watch, talk
    from runtools.cli import run_looks as looks
    from runtools.sdk.shapes.runs import RunStatus
else:
    deciding = lazy.module("runtools.cli.deciding")
    looks = lazy.module("runtools.cli.run_looks")
    run_watch = lazy.module("runtools.cli.run_watch")
    talk = lazy.module("runtools.cli.talk")

runs = typer.Typer(help="Runs of agents: follow, steer, approve, cancel.", no_args_is_help=True)
threads = typer.Typer(help="Conversations that are kept across runs.", no_args_is_help=True)

_ENDINGS = {"completed": 0, "failed": 1, "limit_reached": 3, "cancelled": 130}

Slug = Annotated[str, typer.Argument(metavar="AGENT", help="Its slug.", show_default=False)]
RunRef = Annotated[str, typer.Argument(metavar="RUN", help="Its id.", show_default=False)]
ThreadRef = Annotated[str, typer.Argument(metavar="THREAD", help="Its id.", show_default=False)]
Project = Annotated[
    str | None, typer.Option(metavar="PROJECT", help="By id or name; slugs are a project's own.")
]
InThread = Annotated[
    str | None, typer.Option("--thread", metavar="THREAD", help="Go on with this conversation.")
]
InSandbox = Annotated[
    str | None, typer.Option("--sandbox", metavar="SANDBOX", help="Work in this one.")
]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1)]


def register(app: typer.Typer, agents: typer.Typer) -> None:
    """Add the groups, and to the agents' their work."""
    agents.command("run")(run)
    agents.command("chat")(chat)
    app.add_typer(runs, name="runs", rich_help_panel="Agents")
    app.add_typer(threads, name="threads", rich_help_panel="Agents")


def run(
    slug: Slug,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="What to do; - reads stdin."),
    ] = None,
    thread: InThread = None,
    sandbox: InSandbox = None,
    max_iterations: Annotated[int | None, typer.Option(min=1, max=100)] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="USD", help="Stop before it costs more.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON Schema of an object that it must end with."),
    ] = None,
    detach: Annotated[bool, flag("--detach", "-d", help="Do not follow it; print its id.")] = False,
    project: here.InProject = None,
    json: Json = False,
) -> None:
    """Give an agent work and watch it. Ctrl-C cancels it; twice leaves it running.

    Its words go to stdout. Exit code: 0 completed, 1 failed, 3 at a limit, 130 cancelled.
    """
    message = _prompt(prompt)
    config = _config(max_iterations, max_cost)
    with connected() as rt:
        place = _sandbox_id(rt, sandbox)
        with here.project(project, slug) as sought:
            begun = rt.agents.start(
                slug,
                message,
                thread_id=thread,
                sandbox_id=place,
                config=config,
                output_schema=None if schema is None else _schema(schema),
                project=sought,
            )
        if detach:
            output.show(begun.view, lambda: begun.id)
            return
        ending = run_watch.watch(begun, cancels=True)
    raise typer.Exit(_ENDINGS[ending])


def chat(
    slug: Slug,
    thread: InThread = None,
    sandbox: InSandbox = None,
    project: here.InProject = None,
) -> None:
    """Talk with an agent. What is typed while it works is said to it, at Return; Ctrl-C cancels what it
    does, Ctrl-D ends the talk. Its thread is kept.
    """
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "chat needs a terminal", hint=f"runtools agent run {slug} --prompt … takes one message"
        )
    typed = talk.Typed()
    try:
        with connected() as rt:
            place = _sandbox_id(rt, sandbox)
            while (message := typed.message()) is not None:
                if not message.strip():
                    continue
                with here.project(project, slug) as sought:
                    begun = rt.agents.start(
                        slug, message, thread_id=thread, sandbox_id=place, project=sought
                    )
                thread = begun.thread_id
                heard = typed if sys.stdout.isatty() else None
                run_watch.watch(begun, cancels=True, typed=heard)
    finally:
        if thread is not None:
            output.note(f"to go on: runtools agent chat {slug} --thread {thread}")


@runs.command("list")
def list_runs(
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="How they stand.")] = None,
    agent: Annotated[str | None, typer.Option(metavar="AGENT", help="Whose.")] = None,
    thread: Annotated[str | None, typer.Option("--thread", metavar="THREAD")] = None,
    limit: Limit = 20,
    project: Project = None,
    json: Json = False,
) -> None:
    """List runs, the latest first."""
    with connected() as rt:
        stands: RunStatus | None = status  # type: ignore[assignment]  # the API checks it
        every = rt.runs.list(status=stands, agent=agent, thread_id=thread, project_id=project)
        found = list(islice(every, limit))
    output.show(found, lambda: looks.runs(found))


@runs.command("show")
def show_run(ref: RunRef, json: Json = False) -> None:
    """Show how a run stands, and all of what waits to be allowed."""
    with connected() as rt:
        found = rt.runs.get(ref)
        waiting = deciding.waiting(found)
    output.show(found.view, lambda: looks.run(found.view, waiting.values()))


@runs.command("follow")
def follow(
    ref: RunRef,
    after: Annotated[int, typer.Option(help="Begin after this event.", min=0)] = 0,
    json: Json = False,
) -> None:
    """Show a run's events from the beginning, and follow it to its end. Ctrl-C leaves it alone."""
    with connected() as rt:
        ending = run_watch.watch(rt.runs.get(ref), cancels=False, after=after)
    raise typer.Exit(_ENDINGS[ending])


@runs.command("cancel")
def cancel(ref: RunRef, json: Json = False) -> None:
    """End a run; a command that it has under way is ended too."""
    with connected() as rt:
        found = rt.runs.get(ref).cancel().view
    is_over = found.ended_at is not None
    output.show(found, lambda: f"{found.id} is {found.status if is_over else 'being cancelled'}")


@runs.command("approve")
def approve(
    ref: RunRef,
    call: Annotated[
        str | None, typer.Argument(metavar="[CALL]", help="Which; default: all that wait.")
    ] = None,
    deny: Annotated[bool, flag("--deny", help="Refuse it.")] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the model is told.")
    ] = None,
    arguments: Annotated[
        str | None, typer.Option(metavar="JSON", help="In place of the model's; of one call.")
    ] = None,
    json: Json = False,
) -> None:
    """Allow calls that wait for a person, or refuse them."""
    given = None if arguments is None else objects.parsed(arguments, "--arguments")
    decision: Literal["allow", "deny"] = "deny" if deny else "allow"
    with connected() as rt:
        found = rt.runs.get(ref)
        every = deciding.waiting(found)
        waiting = [call] if call is not None else list(every)
        if not waiting:
            raise InvalidRequest(f"nothing of {found.id} waits to be decided: it is {found.status}")
        if given is not None:
            if len(waiting) != 1:
                raise InvalidRequest("--arguments are those of one call", hint="name it")
            every = {one: every[one].model_copy(update={"arguments": given}) for one in every}
        mine, faults, untried = deciding.decide_all(found, waiting, decision, given, reason)
    if mine:
        done = "denied" if deny else "allowed"
        told = [looks.whole(every[one]) for one in mine if one in every]
        said = f"{done}: {', '.join(mine)}"
        output.show(found.view, lambda: "\n".join([said, *told]))
    if untried:
        output.note(f"not tried: {', '.join(untried)}")
    for fault in faults[:-1]:
        output.fail(fault)
    for fault in faults[-1:]:
        raise fault


@runs.command("steer")
def steer(
    ref: RunRef,
    message: Annotated[str, typer.Argument(metavar="TEXT", help="What to say; - reads stdin.")],
    interrupt: Annotated[bool, flag("--interrupt", help="Break off what it does.")] = False,
    json: Json = False,
) -> None:
    """Say something to a run under way: it is heard after the turn, or at once."""
    with connected() as rt:
        mode: Literal["queue", "interrupt"] = "interrupt" if interrupt else "queue"
        found = rt.runs.get(ref).steer(_prompt(message), mode=mode).view
    output.show(found, lambda: f"said to {found.id}")


@runs.command("continue")
def resume(
    ref: RunRef,
    message: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="What to say beside.")
    ] = None,
    max_iterations: Annotated[int | None, typer.Option(min=1, max=100)] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", metavar="USD")] = None,
    json: Json = False,
) -> None:
    """Go on from where a limit stopped a run, as a run of its own."""
    config = _config(max_iterations, max_cost)
    with connected() as rt:
        ending = run_watch.watch(rt.runs.get(ref).resume(message, config=config), cancels=True)
    raise typer.Exit(_ENDINGS[ending])


@threads.command("list")
def list_threads(
    agent: Annotated[str | None, typer.Option(metavar="AGENT", help="Whose.")] = None,
    limit: Limit = 20,
    project: Project = None,
    json: Json = False,
) -> None:
    """List threads, the one used last first."""
    with connected() as rt:
        found = list(islice(rt.threads.list(agent=agent, project_id=project), limit))
    output.show(found, lambda: looks.threads(found))


@threads.command("show")
def show_thread(ref: ThreadRef, json: Json = False) -> None:
    """Show what was said in a thread."""
    with connected() as rt:
        found = rt.threads.messages(ref)
    output.show(found, lambda: looks.messages(found))


@threads.command("rename")
def rename_thread(
    ref: ThreadRef,
    title: Annotated[str, typer.Argument(metavar="TITLE", help="Empty: none.")],
    json: Json = False,
) -> None:
    """Give a thread another title."""
    with connected() as rt:
        found = rt.threads.rename(ref, title or None)
    output.show(found, lambda: looks.threads([found]))


@threads.command("delete")
def delete_thread(
    ref: ThreadRef, force: Annotated[bool, flag("--force", "-f", help="Do not ask.")] = False
) -> None:
    """Delete a thread with its runs and all that was said in it. Its sandbox stays."""
    if not force:
        typer.confirm(f"Delete {ref} and all that was said in it?", abort=True, err=True)
    with connected() as rt:
        rt.threads.delete(ref)


@threads.command("export")
def export_thread(ref: ThreadRef) -> None:
    """Print all of a thread as one JSON document: its runs and their whole logs."""
    with connected() as rt:
        output.item(rt.threads.export(ref))


# --- what is given ---


def _prompt(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        raise InvalidRequest("nothing is asked for", hint='--prompt "…", or - to read stdin')
    text = stdin.text() if given in (None, "-") else str(given)
    if not text.strip():
        raise InvalidRequest("nothing is asked for", hint='--prompt "…"')
    return text


def _sandbox_id(rt: RunTools, ref: str | None) -> str | None:
    return None if ref is None else rt.sandboxes.get(ref).id


def _config(max_iterations: int | None, max_cost: float | None) -> dict[str, Any]:
    limits = {"max_iterations": max_iterations, "max_cost_usd": max_cost}
    return {name: value for name, value in limits.items() if value is not None}


def _schema(file: Path) -> dict[str, Any]:
    try:
        return objects.parsed(file.read_text(), str(file))
    except OSError as exc:
        raise InvalidRequest(f"{file}: {exc.strerror}") from None
