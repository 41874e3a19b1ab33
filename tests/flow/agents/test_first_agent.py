"""The first lines of `docs/agents.md`, as somebody types them."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from pathlib import Path

import pytest
from tests.flow.agents.test_whole import Whole, whole, worker
from tests.flow.cli.conftest import ROOT, Cli, Done, zygote

from runtools.testing.fake_provider import provider
from runtools.testing.scripted_model import Call

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["whole", "worker", "zygote"]

KEY, LOCAL = re.findall(r"\n\n((?:    .*\n|\n(?=    ))+)", (ROOT / "docs/agents.md").read_text())[
    :2
]
OLLAMA = "http://127.0.0.1:11434/v1"


def said(block: str) -> tuple[list[list[str]], dict[str, str]]:
    """The commands of a block, as words, and the files that it writes."""
    text = re.sub(r"^    ", "", block, flags=re.MULTILINE)
    files = dict(re.findall(r"cat > (\S+) <<'END'\n(.*?)END\n", text, re.DOTALL))
    commands = re.findall(r"^runtools (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    words = [re.findall(r'"[^"]*"|\S+', one) for one in commands]
    return [[word.strip('"') for word in one] for one in words], files


@pytest.fixture
def typed(whole: Whole, zygote: socket.socket, tmp_path: Path) -> Cli:
    """A person's shell."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RUNTOOLS_")}
    key = whole.http.headers["authorization"].removeprefix("Bearer ")
    env |= {"RUNTOOLS_API_URL": whole.url, "RUNTOOLS_API_KEY": key}
    return Cli(env | {"RUNTOOLS_HOME": str(tmp_path / "home")}, tmp_path, zygote)


async def do(cli: Cli, *words: str, stdin: bytes = b"") -> Done:
    return await asyncio.to_thread(cli.ok, *words, stdin=stdin)


async def test_they_lead_to_an_agent(whole: Whole, worker: None, typed: Cli) -> None:
    (init, secret, deploy, run), files = said(KEY)
    [(place, file)] = files.items()
    await do(typed, *init)
    project = Cli(typed.env, typed.folder / init[-1], typed.zygote)
    (project.folder / place).write_text(file)
    await do(project, *secret, stdin=b"sk-ant-x\n")
    await do(project, *deploy, "--yes")
    shown = (await do(project, "agent", "get", run[2], "--json")).data
    assert shown["definition"]["maxCostUsd"] == 1.0
    model = shown["definition"]["model"]
    listed = {one["alias"]: one["key"] for one in await whole.ask("GET", "/v1/models")}
    assert listed[model] == "secret"

    [[*create, url]], _ = said(LOCAL)
    assert url == OLLAMA
    work = ["I write it. ", Call("bash", {"command": "python3 -c 'print(2, 3, 5)'"})]
    async with provider("chat", work, ["They are 2, 3 and 5."]) as fake:
        await do(project, *create, fake.url)
        local = re.sub(r" *max_cost_usd=.*\n", "", file)
        local = re.sub(r'model=".*"', 'model="ollama:qwen3:8b"', local)
        (project.folder / place).write_text(local)
        await do(project, *deploy, "--yes")
        done = await do(project, *run)
        assert fake.asked[0].body["model"] == "qwen3:8b"
    assert done.text == "I write it. \nThey are 2, 3 and 5.\n"
    assert "2 3 5" in done.err
