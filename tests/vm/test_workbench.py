"""The tools of models in a real machine, where ripgrep is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from runtools import AsyncRunTools
from runtools.testing.real_platform import Platform
from runtools.workbench.bench import Bench
from runtools.workbench.toolset import TOOLS

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

FILES = {
    "src/app.py": "import os\n\ndef main():\n    print(os.name)\n",
    "src/app_test.py": "def test_main():\n    pass\n",
    "node_modules/x/index.js": "main()\n",
    ".gitignore": "node_modules/\n",
    ".hidden/conf": "main = 1\n",
    "data.bin": "main\0",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(platform: Platform) -> AsyncIterator[Bench]:
    """A bench in a machine with a small project in it."""
    known = json.loads((platform.home / "client.json").read_text())
    async with (
        AsyncRunTools(known["apiKey"], known["apiUrl"]) as rt,
        await rt.sandboxes.create() as sandbox,
    ):
        for name, text in FILES.items():
            await sandbox.files.write(f"/workspace/{name}", text)
        await sandbox.exec(["git", "init", "-q", "/workspace"])
        yield Bench(sandbox, "test")


async def ask(bench: Bench, tool: str, **given: Any) -> str:
    return (await TOOLS[tool].call(bench, given)).text


class TestGrep:
    async def test_matches_with_file_and_line(self, bench: Bench) -> None:
        found = (await ask(bench, "grep", pattern=r"def \w*main")).splitlines()
        assert sorted(found) == [
            "/workspace/src/app.py:3:def main():",
            "/workspace/src/app_test.py:1:def test_main():",
        ]

    async def test_what_git_ignores_and_binary_files_are_left_out(self, bench: Bench) -> None:
        found = await ask(bench, "grep", pattern="main")
        assert "node_modules" not in found
        assert "data.bin" not in found
        assert ".hidden/conf:1:main = 1" in found
        assert "/.git/" not in await ask(bench, "grep", pattern="main", glob="*")

    async def test_plain_text_capitals_and_context(self, bench: Bench) -> None:
        assert "main():" in await ask(
            bench, "grep", pattern="MAIN():", fixed=True, ignore_case=True
        )
        around = await ask(bench, "grep", pattern="def main", context=1, path="src/app.py")
        assert "app.py-4-    print(os.name)" in around

    async def test_nothing_and_a_wrong_pattern_are_told_apart(self, bench: Bench) -> None:
        assert (await ask(bench, "grep", pattern="zzz")).startswith("nothing below /workspace")
        wrong = await TOOLS["grep"].call(bench, {"pattern": "("})
        assert wrong.failed
        assert "unclosed group" in wrong.text
        gone = await TOOLS["grep"].call(bench, {"pattern": "x", "path": "/none"})
        assert gone.failed


async def test_files_are_found_by_name_the_newest_first(bench: Bench) -> None:
    await bench.sandbox.exec("touch -d '+1 minute' /workspace/src/app.py")
    found = (await ask(bench, "file_search", pattern="*.py")).splitlines()
    assert found == ["/workspace/src/app.py", "/workspace/src/app_test.py"]
    assert (await ask(bench, "file_search", pattern="*.js")).startswith("no file below")


async def test_a_server_is_left_running_and_stopped(bench: Bench) -> None:
    begun = await ask(bench, "bash", command="python3 -m http.server 8123", background=True)
    page = await ask(
        bench,
        "bash",
        command="until curl -sf localhost:8123 >/tmp/page; do :; done; wc -c </tmp/page",
    )
    assert page.endswith("[exit code 0]")
    stopped = await ask(bench, "bash", process_id=begun.split()[1], stop=True)
    assert "[ended by signal 9]" in stopped


async def test_the_shell_keeps_its_place_through_a_pause(bench: Bench) -> None:
    await ask(bench, "bash", command="cd src && export STAGE=two")
    await bench.sandbox.pause()
    assert (await ask(bench, "bash", command="echo $STAGE; pwd")).startswith("two\n/workspace/src")
