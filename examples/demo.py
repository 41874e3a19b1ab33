"""The main job, step by step: a real machine is made, works, sleeps, wakes, is forked and destroyed.

`./dev demo` runs it; it talks to the platform through the public SDK alone. With ``--record FILE`` it
also keeps what it printed as an SVG picture.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from runtools import RunTools, Sandbox

TEMPLATE = "base-debian"
COUNTER = """
import itertools, pathlib, time
count, fresh = pathlib.Path("/workspace/count"), pathlib.Path("/workspace/count.new")
for n in itertools.count(1):
    fresh.write_text(str(n))
    fresh.replace(count)  # so that whoever reads it finds a whole number
    time.sleep(0.2)
"""

console = Console(highlight=False, record=True)
live = Console(highlight=False)  # what is only true for a moment is not recorded


@contextmanager
def step(what: str) -> Iterator[list[str]]:
    """Print what is done, how long it took and what came of it."""
    began = time.perf_counter()
    found: list[str] = []
    if live.is_terminal:
        live.print(f"[bold cyan]▸[/] {what} …", end="\r")
    yield found
    took = time.perf_counter() - began
    console.print(f"[bold green]✓[/] {what}  [dim]{took:.2f} s[/]")
    for line in found:
        console.print(f"    [dim]{line}[/]")


def ensure_template(rt: RunTools) -> None:
    """Build the template on the first run; later runs find it, or the build that an earlier one began."""
    state = {template.slug: template.state for template in rt.templates.list()}.get(TEMPLATE)
    if state == "ready":
        return
    if state == "building":
        console.print(f"[bold]{TEMPLATE}[/] is being built already")
    else:
        console.print(f"building [bold]{TEMPLATE}[/]: once, some minutes")
        rt.templates.build(TEMPLATE, wait=False)
    step = ""
    with console.status("starting") as status:
        for line in rt.templates.logs(TEMPLATE):
            if line.step != step and not live.is_terminal:
                live.print(f"    {line.progress:4.0%}  {line.step}")
            step = line.step
            status.update(f"{line.progress:4.0%}  {line.step}  [dim]{escape(line.text[:60])}[/]")
    template = rt.templates.get(TEMPLATE)
    if template.state != "ready":
        console.print(f"[red]the build failed:[/] {escape(template.error or '')}")
        console.print(f"see: .venv/bin/runtools template logs {TEMPLATE}")
        sys.exit(1)


def count(sandbox: Sandbox) -> int:
    """What the program in the sandbox has counted to."""
    return int(sandbox.exec("cat /workspace/count").stdout)


def main() -> None:
    """Run the main job."""
    with RunTools() as rt:
        ensure_template(rt)
        with step("create a sandbox") as said:
            sandbox = rt.sandboxes.create(template=TEMPLATE)
            said.append(
                f"{sandbox.id}  {sandbox.isolation} microVM, started {sandbox.started_from}"
            )
        with step("run a real program in it") as said:
            said.append(
                sandbox.exec("uname -sr; python3 --version; nproc").stdout.replace("\n", "  ")
            )
            sandbox.files.write("/workspace/counter.py", COUNTER.encode())
            sandbox.exec("setsid python3 counter.py >/dev/null 2>&1 </dev/null &")
            sandbox.exec("until [ -s count ]; do sleep 0.1; done")
            said.append(f"a counter runs in the background and is at {count(sandbox)}")
        with step("pause it: memory and processes go to disk"):
            sandbox.pause()
        with step("resume it") as said:
            sandbox.resume()
            first = count(sandbox)
            sandbox.exec(f"while [ $(cat count) -le {first} ]; do sleep 0.1; done")
            said.append(f"the same process still counts: {first}, then {count(sandbox)}")
        with step("fork it: a second machine with the same memory") as said:
            [child] = sandbox.fork()
            said.append(f"{child.id}  its own copy of the counter is at {count(child)}")
            sandbox.exec("echo parent > whoami")
            said.append(
                f"a file of the parent is not in the child: {not child.exec('ls whoami').stdout}"
            )
        with step("destroy both"):
            child.destroy()
            sandbox.destroy()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        console.print("\ninterrupted: what was begun goes on; ./dev demo again follows it")
        sys.exit(130)
    if sys.argv[1:2] == ["--record"]:
        console.save_svg(sys.argv[2], title="./dev demo")
