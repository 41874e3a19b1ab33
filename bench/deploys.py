"""The command line and the project folder: `runtools --help`, and a deploy of 50 definitions unchanged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.section import Bench
from bench.table import Row, Series, at_most_floor_times, row
from runtools.project import loading
from runtools.project.folder import find

PROJECT = "bench-deploys"
AGENTS, TOOLS = 25, 25
_RUNTOOLS = str(Path(sys.executable).with_name("runtools"))

_AGENT = """\
from runtools import define_agent

define_agent(
    slug="agent-{n}", name="Agent {n}", model="demo", tools=["tool-{n}"], system_prompt={prompt!r}
)
"""
_TOOL = '''\
from runtools import define_tool


def act(text: str, times: int = 1) -> dict[str, int]:
    """Count.

    Args:
        text: what is counted.
        times: how often.
    """
    return {{"words": len(text.split()) * times}}


define_tool(name="tool-{n}", description="Counts.", actions={{"act": act}})
'''


def measure(bench: Bench) -> Iterator[Row]:
    """Whole commands beside an empty Python, then the parts of a deploy that changes nothing."""
    bare, shown = Series(), Series()
    for _ in range(bench.rounds):
        bare.time(lambda: _run(sys.executable, "-c", "pass"))
        shown.time(lambda: _run(_RUNTOOLS, "--help"))
    yield row("runtools --help", shown, bare, wanted=[at_most_floor_times(4)])
    root = bench.work / "project"
    _write(root)
    _run(_RUNTOOLS, "deploy", "--yes", cwd=root)
    try:
        yield from _unchanged(bench, root)
    finally:
        for file in root.glob("*/*.py"):
            file.unlink()
        _run(_RUNTOOLS, "deploy", "--prune", "--yes", cwd=root)
        bench.rt.projects.delete(PROJECT)


def _unchanged(bench: Bench, root: Path) -> Iterator[Row]:
    whole, load, plan, start = Series(), Series(), Series(), Series()
    folder = find(root)
    definitions = [one.definition for one in loading.load(folder)]
    assert not bench.rt.deploys.plan(PROJECT, definitions).changes
    for _ in range(bench.rounds):
        whole.time(lambda: _run(_RUNTOOLS, "deploy", cwd=root))
        load.time(lambda: loading.load(folder))
        plan.time(lambda: bench.rt.deploys.plan(PROJECT, definitions))
        start.time(lambda: _run(_RUNTOOLS, "auth", "status"))
    count = len(definitions)
    yield row(f"runtools deploy, {count} definitions unchanged", whole, None)
    yield row("… of it: loading the files in a process of their own", load, None)
    yield row("… of it: the plan, through HTTP", plan, None)
    yield row("… beside it: a command that asks once (auth status)", start, None)


def _write(root: Path) -> None:
    for place in ("agents", "tools"):
        (root / place).mkdir(parents=True)
    (root / "pyproject.toml").write_text(f'[tool.runtools]\nproject = "{PROJECT}"\n')
    prompt = "You write small programs, run them and say what came out.\n" * 20
    for n in range(AGENTS):
        (root / "agents" / f"agent_{n}.py").write_text(_AGENT.format(n=n, prompt=prompt))
    for n in range(TOOLS):
        (root / "tools" / f"tool_{n}.py").write_text(_TOOL.format(n=n))


def _run(*argv: str, cwd: Path | None = None) -> None:
    subprocess.run(argv, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
