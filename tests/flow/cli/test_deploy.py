"""`runtools init`, `deploy`, `agent`, `tool` and `deploys`, as people use them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtools import RunTools

Cli = Any  # the fixture of conftest.py


@pytest.fixture
def project(cli: Cli, request: pytest.FixtureRequest) -> Path:
    """A fresh project in the folder that commands are run in, of a name of its own."""
    name = request.node.name.replace("_", "-")[:40].rstrip("-")
    cli.ok("init", name)
    folder = cli.folder / name
    for place in folder.iterdir():
        place.rename(cli.folder / place.name)
    return Path(cli.folder)


def changes(cli: Cli, *options: str) -> list[tuple[str, str, str]]:
    data = cli.ok("deploy", "--json", *options).data
    return [(one["action"], one["kind"], one["slug"]) for one in data["changes"]]


ALL = [
    ("create", "tool", "word-count"),
    ("create", "sandbox", "dev-env"),
    ("create", "agent", "hello"),
]


def name_of(project: Path) -> str:
    text = (project / "pyproject.toml").read_text()
    return text.rpartition('project = "')[2].partition('"')[0]


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


class TestInit:
    def test_it_names_its_files_and_what_to_do_next(self, cli: Cli) -> None:
        done = cli.ok("init", "shop")
        assert done.text.splitlines() == [
            "shop/pyproject.toml",
            "shop/agents/hello.py",
            "shop/tools/word_count.py",
            "shop/sandboxes/dev_env.py",
            "shop/.gitignore",
        ]
        assert "cd shop && runtools deploy" in done.err
        assert (cli.folder / "shop/agents/hello.py").exists()

    def test_nothing_is_written_over(self, cli: Cli) -> None:
        cli.ok("init", "shop")
        done = cli("init", "shop")
        assert done.code == 1
        assert "already; nothing was written" in done.err


class TestDeploy:
    def test_a_new_project_deploys_as_it_stands_and_again_changes_nothing(
        self, cli: Cli, project: Path, rt: RunTools
    ) -> None:
        name = name_of(project)
        assert changes(cli, "--dry-run") == ALL
        assert [one for one in rt.projects.list() if one.name == name] == []
        done = cli.ok("deploy", "--yes")
        for line in ("+ tool     word-count", "✓ sandbox dev-env created", "3 of 3 changes"):
            assert line in done.text
        assert changes(cli) == []
        assert "nothing changes" in cli.ok("deploy").text
        assert rt.agents.get("hello", project_id=name).definition.sandbox == "dev-env"
        assert rt.standing_sandboxes.get("dev-env", project_id=name).version == 1

    def test_a_part_of_it(self, cli: Cli, project: Path) -> None:
        assert changes(cli, "--dry-run", "--sandboxes-only", "--tools-only") == ALL[:2]
        refused = cli("deploy", "--agents-only", "--yes")
        assert refused.code == 1
        assert "no tool 'word-count' in the project" in refused.err or "sandbox" in refused.err
        assert changes(cli, "--tools-only", "--yes") == ALL[:1]
        assert changes(cli, "--yes") == ALL[1:]

    def test_a_plan_shows_field_by_field_what_changes(self, cli: Cli, project: Path) -> None:
        cli.ok("deploy", "--yes")
        change(project / "agents/hello.py", 'model="demo"', 'model="demo", temperature=0.5')
        change(project / "sandboxes/dev_env.py", "setup=[", 'env={"A": "hunter2"}, setup=[')
        done = cli.ok("deploy", "--dry-run")
        assert "-/+ sandbox  dev-env  all its data is lost" in done.text
        assert "temperature  none → 0.5" in done.text
        assert "1 to update, 1 to replace" in done.text
        assert "hunter2" not in done.text + done.err
        shown = cli.ok("deploy", "--dry-run", "--json").text
        assert "hunter2" not in shown

    def test_pruning(self, cli: Cli, project: Path) -> None:
        cli.ok("deploy", "--yes")
        for place in ("agents", "sandboxes", "tools"):
            for file in (project / place).glob("*.py"):
                file.unlink()
        assert changes(cli) == []
        gone = [("delete", kind, slug) for _, kind, slug in reversed(ALL)]
        assert changes(cli, "--prune", "--dry-run") == gone
        assert changes(cli, "--prune", "--yes") == gone
        assert changes(cli, "--prune") == []

    def test_nothing_changes_when_a_file_has_an_error(
        self, cli: Cli, project: Path, rt: RunTools
    ) -> None:
        (project / "agents/wrong.py").write_text(
            "from runtools import define_agent\ndefine_agent(\n"
        )
        (project / "tools/other.py").write_text("import sys\nsys.exit(0)\n")
        done = cli("deploy", "--yes", "--json")
        assert done.code == 1
        problems = json.loads(done.err)["error"]["details"]["problems"]
        assert [(one["file"], one["line"]) for one in problems] == [
            ("agents/wrong.py", 2),
            ("tools/other.py", 2),
        ]
        assert name_of(project) not in {one.name for one in rt.projects.list()}

    def test_what_the_platform_refuses_is_told_with_its_place(
        self, cli: Cli, project: Path
    ) -> None:
        change(project / "agents/hello.py", '"demo"', '"no-such-model"')
        done = cli("deploy", "--yes")
        assert "agents/hello.py:6: model: there is no model 'no-such-model'" in done.err
        change(project / "agents/hello.py", '"no-such-model"', '"demo"')
        change(project / "sandboxes/dev_env.py", "base-debian", "no-such-template")
        done = cli("deploy", "--yes")
        assert "sandboxes/dev_env.py:5: template: sandbox dev-env: no template" in done.err
        change(project / "sandboxes/dev_env.py", 'setup=["', 'tags={"a:b": ""}, setup=["')
        done = cli("deploy", "--yes", "--json")
        (problem,) = json.loads(done.err)["error"]["details"]["problems"]
        assert (problem["file"], problem["line"], problem["field"]) == (
            "sandboxes/dev_env.py",
            6,
            "tags",
        )

    def test_a_project_that_defines_nothing_says_so(self, cli: Cli, project: Path) -> None:
        for file in project.rglob("*.py"):
            file.unlink()
        done = cli.ok("deploy")
        assert "defines nothing" in done.err

    def test_a_setup_that_fails_is_told_with_what_it_said(self, cli: Cli, project: Path) -> None:
        change(project / "sandboxes/dev_env.py", "mkdir -p /workspace/src", "echo no luck; exit 7")
        done = cli("deploy", "--yes")
        assert done.code == 1
        assert "    no luck\n" in done.err
        assert "setup command 1 ended with exit code 7" in done.err
        assert "failed" in done.text
        change(project / "sandboxes/dev_env.py", "echo no luck; exit 7", "true")
        assert changes(cli, "--yes") == ALL[1:]

    def test_without_anybody_to_ask_nothing_is_done(self, cli: Cli, project: Path) -> None:
        done = cli("deploy")
        assert done.code == 1
        assert "--yes carries it out" in done.err
        assert changes(cli, "--dry-run") == ALL

    def test_lost_data_has_a_question_of_its_own(self, cli: Cli, project: Path) -> None:
        cli.ok("deploy", "--yes")
        change(project / "sandboxes/dev_env.py", "mkdir -p /workspace/src", "true")
        code, text = at_a_terminal(cli, b"y\nno\n")
        assert "All data in sandbox dev-env will be lost" in text
        assert (code, "nothing was done" in text) == (1, True)
        assert changes(cli, "--dry-run") == [("replace", "sandbox", "dev-env")]
        code, text = at_a_terminal(cli, b"y\ndev-env\n")
        assert code == 0, text
        assert changes(cli) == []

    def test_the_commit_is_remembered(self, cli: Cli, project: Path, rt: RunTools) -> None:
        git = ["git", "-C", str(project), "-c", "user.name=n", "-c", "user.email=e@example.org"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
            subprocess.run([*git, *words], check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True)
        cli.ok("deploy", "--yes")
        change(project / "agents/hello.py", "Hello", "Hallo")
        cli.ok("deploy", "--yes")
        name = name_of(project)
        versions = list(rt.agents.versions("hello", project_id=name))
        commits = [one.commit for one in versions]
        assert [one and (one.id, one.dirty) for one in commits] == [
            (head.stdout.decode().strip(), True),
            (head.stdout.decode().strip(), False),
        ]
        assert (
            f"{commits[0].id[:10]}*" in cli.ok("agent", "versions", "hello", "--project", name).text
        )

    def test_a_project_of_another_org_is_not_deployed(self, cli: Cli, project: Path) -> None:
        change(project / "pyproject.toml", "[tool.runtools]", '[tool.runtools]\norg = "elsewhere"')
        done = cli("deploy", "--yes")
        assert done.code == 1
        assert "belongs to org 'elsewhere'" in done.err

    def test_a_folder_that_is_no_project(self, cli: Cli) -> None:
        done = cli("deploy")
        assert done.code == 1
        assert "runtools init" in done.err

    def test_more_definitions_than_a_project_may_have(self, cli: Cli, project: Path) -> None:
        text = (
            "from runtools import define_agent\n"
            "for n in range(10_000):\n"
            '    define_agent(slug=f"a{n}", name="A", model="demo")\n'
        )
        (project / "agents/many.py").write_text(text)
        done = cli("deploy", "--yes")
        assert done.code == 1
        assert "agents/: 10001 definitions of one kind, more than 1000" in done.err


class TestDeployed:
    def test_agents(self, cli: Cli, project: Path) -> None:
        name = name_of(project)
        cli.ok("deploy", "--yes")
        change(project / "agents/hello.py", "Hello", "Hallo")
        cli.ok("deploy", "--yes")
        where = ("--project", name)
        assert "hello" in cli.ok("agent", "list", *where).text
        assert "Hallo" in cli.ok("agent", "get", "hello", *where).text
        assert cli.ok("agent", "rollback", "hello", *where).text == "hello is at version 1\n"
        rows = cli.ok("agent", "versions", "hello", *where, "--json").data
        assert [(one["version"], one["current"]) for one in rows] == [(2, False), (1, True)]
        assert cli("agent", "delete", "hello", *where).code == 1
        first = cli.ok("agent", "version", "hello", "1", *where)
        assert ("Hello" in first.text, "Hallo" in first.text) == (True, False)
        second = cli.ok("agent", "version", "hello", rows[0]["id"], *where, "--json").data
        assert (second["version"], second["definition"]["name"]) == (2, "Hallo")
        assert cli("agent", "version", "hello", "3", *where).code == 1
        cli.ok("agent", "delete", "hello", *where, "--force")
        assert cli("agent", "get", "hello", *where).code == 1

    def test_tools_and_deploys(self, cli: Cli, project: Path) -> None:
        name = name_of(project)
        cli.ok("deploy", "--yes")
        where = ("--project", name)
        assert "word-count" in cli.ok("tool", "list", *where).text
        assert "no tools service" in cli.ok("tool", "get", "word-count", *where).text
        assert len(cli.ok("tool", "versions", "word-count", *where, "--json").data) == 1
        seen = cli.ok("tool", "version", "word-count", "1", *where).text
        assert (project / "tools/word_count.py").read_text().rstrip() in seen
        call = ("tool", "execute", "word-count", "count", *where)
        refused = cli(*call, "--params", '{"text": "a b"}', "--json")
        assert json.loads(refused.err)["error"]["code"] == "tools_unavailable"
        assert "no tools service" in cli(*call, "--params", "-", stdin=b'{"text": "a"}').err
        assert "--params is no JSON object" in cli(*call, "--params", "[]").err
        assert "stdin is no JSON" in cli(*call, "--params", "-").err
        assert "no action 'none'" in cli("tool", "execute", "word-count", "none", *where).err
        assert "named by hello" in cli("tool", "delete", "word-count", *where, "--force").err
        (one,) = cli.ok("deploys", "list", *where, "--json").data
        assert "3/3" in cli.ok("deploys", "list", *where).text
        assert "+ sandbox  dev-env" in cli.ok("deploys", "show", one["id"]).text
        assert "dev-env" in cli.ok("sandbox", "standing", *where).text


def at_a_terminal(cli: Cli, typed: bytes) -> tuple[int, str]:
    """`runtools deploy` with somebody there who types; its exit code and all it showed."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-c", "import sys; from runtools.cli import main; sys.exit(main())"]
    with subprocess.Popen(
        [*argv, "deploy"],
        env=cli.env,
        cwd=cli.folder,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        os.close(theirs)
        os.write(ours, typed)
        out, _ = process.communicate(timeout=120)
        os.close(ours)
    return process.returncode, out.decode()
