"""`runtools sandbox …` from the first command to the last."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.flow.cli.conftest import Platform

from runtools import RunTools
from runtools.sdk.shapes.egress import EgressRefusal

Cli = Any  # the fixture of conftest.py
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIb6lS7YdL2xlkkp6XhLD/j4VxZgq7kVkNcie9wInN+1 me"


def fresh(stem: str = "web") -> str:
    return f"{stem}-{secrets.token_hex(3)}"


class TestLife:
    def test_a_whole_one(self, cli: Cli) -> None:
        name = fresh()
        made = cli.ok("sandbox", "create", "--name", name, "--tag", "team=a", "--env", "K=v=w")
        assert made.text.strip().startswith("sandbox-")
        assert made.text.count("\n") == 1
        assert f"{name} runs" in made.err
        assert cli.ok("sandbox", "exec", name, "--", "printenv", "K").text == "v=w\n"
        assert "paused" in cli.ok("sandbox", "pause", name).text
        assert cli.ok("sandbox", "get", name, "--json").data["state"] == "paused"
        assert "running" in cli.ok("sandbox", "resume", name).text
        kept = cli.ok("sandbox", "snapshot", name, "--name", "first").text.strip()
        cli.ok("sandbox", "exec", name, "-c", "echo later > x")
        cli.ok("sandbox", "rollback", name, "--to", "first")
        assert cli("sandbox", "exec", name, "-c", "cat x").code == 1
        assert kept in cli.ok("sandbox", "snapshots", name).text
        assert cli.ok("sandbox", "snapshots", name, "--delete", "first", "--json").data == []
        twins = cli.ok(
            "sandbox", "fork", name, "--count", "2", "--name", fresh("twin")
        ).text.split()
        assert len(twins) == 2
        assert "destroyed" in cli.ok("sandbox", "destroy", name, *twins).text
        assert cli.ok("sandbox", "get", name, "--json").data["state"] == "stopped"

    def test_names_are_unique_among_the_living(self, cli: Cli, rt: RunTools) -> None:
        with rt.sandboxes.create(name=fresh()) as living:
            done = cli("sandbox", "create", "--name", living.name)
            assert done.code == 1
            assert "error:" in done.err

    def test_it_need_not_wait(self, cli: Cli, rt: RunTools) -> None:
        view = cli.ok("sandbox", "create", "--no-wait", "--json").data
        assert view["state"] in ("creating", "running")
        rt.sandboxes.get(view["id"]).wait_until_running(20).destroy()

    def test_a_resume_without_room_says_so_and_waits_as_long_as_it_is_told(
        self, cli: Cli, rt: RunTools, platform: Platform
    ) -> None:
        with rt.sandboxes.create(name=fresh()) as slept:
            slept.pause()
            crowding = platform.world.host.crowd_out(slept.id)
            asyncio.run_coroutine_threadsafe(crowding, platform.loop).result(20)
            done = cli("sandbox", "resume", slept.name, "--timeout", "0")
            assert done.code == 1
            said, error = done.err.splitlines()
            assert said.startswith(f"{slept.name} waits for room: place 1 in the queue")
            assert f"runtools sandbox pause {slept.name}" in said
            assert error == f"error: {slept.id} waits for room on its host"

    def test_every_field_has_its_option(self, cli: Cli, rt: RunTools, tmp_path: Path) -> None:
        (tmp_path / "id.pub").write_text(f"{PUBLIC_KEY}\n")
        options = [
            *("--template", "base-debian", "--vcpus", "1"),
            *("--memory-mb", "512", "--disk-mb", "1024"),
            *("--idle-timeout", "0", "--max-lifetime", "3600", "--no-internet", "--no-queue"),
            *("--ssh-key", "id.pub", "--password-stdin", "--require-isolation", "hardware"),
        ]
        view = cli.ok("sandbox", "create", "--json", *options, stdin=b"long enough\n").data
        rt.sandboxes.get(view["id"]).destroy()
        wanted = {
            "vcpus": 1,
            "memoryMb": 512,
            "diskMb": 1024,
            "idleTimeoutSeconds": 0,
            "maxLifetimeSeconds": 3600,
            "internet": False,
        }
        assert wanted.items() <= view.items()
        assert "long enough" not in json.dumps(view)

    def test_a_private_key_stays_here(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        done = cli("sandbox", "create", "--ssh-key", "id")
        assert done.code == 1
        assert "id.pub" in done.err

    @pytest.mark.parametrize(
        "options",
        [
            ["--name", "Bad_Name"],
            ["--memory-mb", "1"],
            ["--template", "nothing"],
            ["--tag", "novalue"],
            ["--env", "1A=x"],
        ],
    )
    def test_bad_input_says_what_is_wrong(self, cli: Cli, options: list[str]) -> None:
        done = cli("sandbox", "create", *options)
        assert done.code == 1
        assert done.out == b""
        assert done.err.startswith("error: ")


class TestLook:
    def test_list_in_80_columns(self, cli: Cli, rt: RunTools) -> None:
        with rt.sandboxes.create(name=fresh(), tags={"kind": "listed"}) as one:
            done = cli.ok("sandbox", "list", "--tag", "kind=listed")
            head, row = done.text.splitlines()
            assert head.split() == ["NAME", "ID", "STATE", "TEMPLATE", "AGE"]
            assert {one.name, one.id, "running"} <= set(row.split())
            assert all(len(line) <= 80 for line in (head, row))
            assert "\x1b" not in done.text

    def test_stopped_ones_only_when_asked_for(self, cli: Cli, rt: RunTools) -> None:
        ended = rt.sandboxes.create(tags={"kind": "ended"})
        ended.destroy()
        listed = ["sandbox", "list", "-q", "--tag", "kind=ended"]
        assert cli.ok(*listed).text == ""
        assert cli.ok(*listed, "--all").text.split() == [ended.id]

    def test_json_is_the_apis_data(self, cli: Cli, rt: RunTools) -> None:
        with rt.sandboxes.create(tags={"kind": "json"}) as one:
            listed = cli.ok("sandbox", "list", "--json", "--tag", "kind=json").data
            assert listed == [json.loads(one.view.model_dump_json())]
            assert cli.ok("sandbox", "stats", one.id, "--json").data["processes"] == 1
            assert isinstance(cli.ok("sandbox", "logs", one.id, "--json").data, list)

    def test_errors_are_json_too(self, cli: Cli) -> None:
        done = cli("sandbox", "get", "nobody", "--json")
        assert (done.code, done.out) == (1, b"")
        error = json.loads(done.err)["error"]
        assert error["code"] == "not_found"
        assert error["requestId"]

    def test_why_tells_the_story(self, cli: Cli, rt: RunTools) -> None:
        one = rt.sandboxes.create(name=fresh())
        one.pause()
        one.destroy()
        told = cli.ok("sandbox", "why", one.id).text
        places = [told.index(word) for word in (one.id, "runs", "paused", "destroyed")]
        assert places == sorted(places)
        seqs = [entry["seq"] for entry in cli.ok("sandbox", "why", one.id, "--json").data]
        assert seqs == sorted(seqs)
        assert len(seqs) >= 3

    def test_stats_logs_and_get_draw(self, cli: Cli, sandbox: str) -> None:
        assert "memory" in cli.ok("sandbox", "stats", sandbox).text
        assert sandbox in cli.ok("sandbox", "get", sandbox).text
        cli.ok("sandbox", "logs", sandbox, "--lines", "5")

    def test_the_last_hour_of_one(self, cli: Cli, rt: RunTools, sandbox: str) -> None:
        now = rt.sandboxes.get(sandbox).stats()
        (point,) = rt.sandboxes.get(sandbox).stats_history().points
        assert (point.at, point.disk_bytes) == (now.measured_at, now.disk_used_bytes)
        hour = ("sandbox", "stats", sandbox, "--history")
        (told,) = cli.ok(*hour, "--json").data["points"]
        assert told == json.loads(point.model_dump_json())
        drawn = cli.ok(*hour).text
        assert {"cpu", "memory", "disk"} <= set(drawn.split())
        assert all(len(line) <= 80 for line in drawn.splitlines())

    def test_a_reader_that_leaves_is_met_in_silence(self, cli: Cli, sandbox: str) -> None:
        argv = ["-c", "from runtools.cli import main; main()", "sandbox", "list", "--json"]
        with subprocess.Popen(
            [sys.executable, *argv], env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""


class TestEgress:
    def test_it_is_shown_and_changed(self, cli: Cli, sandbox: str) -> None:
        egress = ("sandbox", "egress", sandbox)
        everything = {"internet": True, "allow": ["*"], "deny": []}
        assert cli.ok(*egress, "--json").data == everything
        shown = cli.ok(*egress).text
        assert "everything" in shown
        assert "nothing was refused" in shown
        lists = ("--allow", "B.org", "--allow", "203.0.113.0/24", "--deny", "*.evil.net")
        assert "b.org" in cli.ok(*egress, *lists).text
        changed = {"internet": True, "allow": ["203.0.113.0/24", "b.org"], "deny": ["*.evil.net"]}
        assert cli.ok(*egress, "--json").data == changed
        freed = cli.ok(*egress, "--no-deny", "--json").data
        assert freed == changed | {"deny": []}
        shut = cli.ok(*egress, "--no-internet", "--json").data
        assert shut == freed | {"internet": False}
        assert cli.ok(*egress, "--json").data == shut
        assert "closed" in cli.ok(*egress).text

    def test_what_is_no_rule_changes_nothing(self, cli: Cli, sandbox: str) -> None:
        done = cli("sandbox", "egress", sandbox, "--allow", "http://b.org/")
        assert (done.code, done.out) == (1, b"")
        assert done.err.startswith("error: ")
        assert cli.ok("sandbox", "egress", sandbox, "--json").data["allow"] == ["*"]

    def test_what_was_refused_is_logged(self, cli: Cli, sandbox: str, platform: Platform) -> None:
        now = datetime.now(UTC)
        platform.world.host.machines[sandbox].refused.append(
            EgressRefusal(
                reason="not_allowed",
                protocol="tcp",
                name="evil.net",
                address="192.0.2.9",
                port=443,
                count=7,
                hint=None,
                first_at=now,
                last_at=now,
            )
        )
        (told,) = cli.ok("sandbox", "egress", sandbox, "--log", "--json").data["refusals"]
        assert (told["reason"], told["name"], told["count"]) == ("not_allowed", "evil.net", 7)
        alone = cli.ok("sandbox", "egress", sandbox, "--log").text
        assert "evil.net 192.0.2.9:443" in alone
        assert "everything" not in alone
        both = cli.ok("sandbox", "egress", sandbox).text
        assert "everything" in both
        assert "evil.net 192.0.2.9:443" in both


class TestCopy:
    def test_a_file_there_and_back(self, cli: Cli, sandbox: str, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("x" * 100_000)
        cli.ok("sandbox", "cp", "a.txt", f"{sandbox}:/workspace")
        cli.ok("sandbox", "cp", f"{sandbox}:/workspace/a.txt", "b.txt")
        assert (tmp_path / "b.txt").read_text() == "x" * 100_000

    def test_a_folder_as_cp_r_would(self, cli: Cli, sandbox: str, tmp_path: Path) -> None:
        (tmp_path / "app/sub").mkdir(parents=True)
        (tmp_path / "app/sub/x").write_text("x")
        cli.ok("sandbox", "cp", "app", f"{sandbox}:/workspace/new")
        cli.ok("sandbox", "cp", "app", f"{sandbox}:/workspace/new")
        cli.ok("sandbox", "cp", f"{sandbox}:/workspace/new", "back")
        assert (tmp_path / "back/sub/x").read_text() == "x"
        assert (tmp_path / "back/app/sub/x").read_text() == "x"

    def test_what_cannot_come_is_said(self, cli: Cli, sandbox: str, tmp_path: Path) -> None:
        cli.ok(
            "sandbox",
            "exec",
            sandbox,
            "-c",
            "mkdir d && ln -s /etc/passwd d/p && echo x > d/x",
            "-w",
            "/workspace",
        )
        done = cli.ok("sandbox", "cp", f"{sandbox}:/workspace/d", "d")
        assert [found.name for found in (tmp_path / "d").iterdir()] == ["x"]
        assert "left out: p" in done.err

    @pytest.mark.parametrize(
        "pair", [("a", "b"), ("x:/a", "y:/b"), ("none", "x:/a"), ("x:rel", "a"), ("x:/none", "a")]
    )
    def test_what_cannot_be_meant(self, cli: Cli, sandbox: str, pair: tuple[str, str]) -> None:
        done = cli("sandbox", "cp", *[side.replace("x:", f"{sandbox}:") for side in pair])
        assert done.code == 1
        assert done.err.startswith("error: ")


class TestRest:
    def test_templates(self, cli: Cli) -> None:
        slug = fresh("mine")
        built = cli.ok("template", "build", slug, "--recipe", "base-debian")
        assert built.text.startswith(f"{slug}@1 is ready")
        assert built.err.count("\n") >= 3
        assert slug in cli.ok("template", "list").text
        assert "ready" in cli.ok("template", "show", slug).text
        assert cli.ok("template", "logs", slug).text.count("\n") >= 3
        assert "deleted" in cli.ok("template", "delete", slug).text

    def test_a_build_goes_on_without_who_asked_for_it_until_it_is_deleted(
        self, cli: Cli, tmp_path: Path
    ) -> None:
        slug, script = fresh("mine"), tmp_path / "script"
        script.write_text("sleep 1000")
        program = "import sys; from runtools.cli import main; sys.exit(main())"
        argv = [sys.executable, "-c", program, "template", "build", slug, "--recipe", "base-debian"]
        argv += ["--run", str(script)]
        with subprocess.Popen(argv, env=cli.env, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        told = f"`runtools template delete {slug} --version 1` ends it"
        assert told in err
        assert f"`runtools template logs {slug} --version 1` follows it" in err
        assert "building" in cli.ok("template", "show", slug).text
        gone = cli.ok("template", "delete", slug, "--version", "1").text
        assert gone == f"{slug}@1 is deleted; {slug}@1 is built no more\n"

    def test_streams_are_one_object_a_line(self, cli: Cli) -> None:
        slug = fresh("mine")
        lines = cli.ok(
            "template", "build", slug, "--recipe", "base-debian", "--json"
        ).text.splitlines()
        objects = [json.loads(line) for line in lines]
        assert [one["n"] for one in objects[:-1]] == list(range(1, len(objects)))
        assert objects[-1]["state"] == "ready"

    def test_a_template_in_use_is_kept(self, cli: Cli, sandbox: str) -> None:
        assert "error:" in cli("template", "delete", "base-debian").err

    def test_disk(self, cli: Cli) -> None:
        (host,) = cli.ok("hosts", "--json").data
        assert host["alive"]
        assert f"{host['driver']} ({host['accelerator']})" in cli.ok("hosts").text
        assert "templates" in cli.ok("df").text
        assert cli.ok("df", "--json").data["totalBytes"] > 0
        assert cli("prune").code == 1
        assert "freed" in cli.ok("prune", "--yes").text

    def test_version_and_help(self, cli: Cli) -> None:
        assert cli.ok("--version").text.count(".") == 2
        assert "create" in cli.ok("sandbox", "--help").text

    def test_names_complete(self, cli: Cli, rt: RunTools) -> None:
        with rt.sandboxes.create(name=fresh("complete")) as one:
            assert one.name is not None
            words = "runtools sandbox get complete"
            done = cli(_RUNTOOLS_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")
            assert one.name in done.text.split()

    def test_the_example_runs_as_it_stands(self, cli: Cli) -> None:
        example = Path(__file__).resolve().parents[3] / "examples/quickstart.py"
        done = subprocess.run(
            [sys.executable, str(example)],
            env=cli.env,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.count("hello from") == 2
