"""`runtools sandbox exec --detach`, `ps`, `logs X PROC`, `kill`: commands that are left running."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.flow.cli.conftest import Platform, nobody_knows, wakes

from runtools import RunTools
from runtools.errors import InvalidRequest

Cli = Any  # the fixture of conftest.py


def start(cli: Cli, sandbox: str, *argv: str) -> str:
    name: str = cli.ok("sandbox", "exec", sandbox, "--detach", "--", *argv).text.strip()
    assert name.startswith("prc_")
    return name


class TestLeft:
    def test_it_goes_on_and_its_output_is_followed(self, cli: Cli, sandbox: str) -> None:
        name = start(cli, sandbox, "sh", "-c", "echo out; echo err >&2; printf '\\377'")
        assert sorted(cli.ok("sandbox", "logs", sandbox, name, "--follow").out) == sorted(
            b"out\nerr\n\xff"
        )
        logs = ("sandbox", "logs", sandbox, name, "--stream")
        assert cli.ok(*logs, "stdout", "--offset", "2").out == b"t\n\xff"
        assert cli.ok(*logs, "stderr", "--follow", "--offset", "1").out == b"rr\n"
        assert "exit 0" in cli.ok("sandbox", "ps", sandbox).text

    def test_an_offset_of_another_history_is_refused(
        self, cli: Cli, rt: RunTools, sandbox: str
    ) -> None:
        name = start(cli, sandbox, "printf", "0123456789")
        rt.sandboxes.get(sandbox).processes.get(name).wait(timeout=20)
        old = cli.ok("sandbox", "ps", sandbox, "--json").data[0]["history"]
        logs = ("sandbox", "logs", sandbox, name, "--offset", "4", "--history")
        assert cli.ok(*logs, old).out == b"456789"
        cli.ok("sandbox", "snapshot", sandbox, "--name", "kept")
        cli.ok("sandbox", "rollback", sandbox, "--to", "kept")
        for more in ([], ["--follow"]):
            refused = cli(*logs, old, *more)
            assert refused.code == 1
            assert refused.out == b""
            assert "went back to a snapshot" in refused.err
        now = cli.ok("sandbox", "ps", sandbox, "--json").data[0]["history"]
        assert cli.ok(*logs, now).out == b"456789"
        assert cli("sandbox", "logs", sandbox, "--history", now).code == 2

    def test_ps_and_kill(self, cli: Cli, sandbox: str) -> None:
        name = start(cli, sandbox, "sleep", "600")
        assert cli.ok("sandbox", "ps", sandbox, "--json").data[0]["state"] == "running"
        assert "sleep 600" in cli.ok("sandbox", "ps", sandbox).text
        cli.ok("sandbox", "kill", sandbox, name, "-s", "KILL")
        cli.ok("sandbox", "logs", sandbox, name, "--follow")
        assert "signal 9" in cli.ok("sandbox", "ps", sandbox).text

    def test_the_console_is_still_shown_without_one(self, cli: Cli, sandbox: str) -> None:
        cli.ok("sandbox", "logs", sandbox)
        assert cli("sandbox", "logs", sandbox, "--follow").code == 2

    @pytest.mark.parametrize(
        "argv",
        [
            ["logs", "prc_none"],
            ["logs", "prc_none", "--follow"],
            ["kill", "prc_none"],
        ],
    )
    def test_one_that_is_not_there(self, cli: Cli, sandbox: str, argv: list[str]) -> None:
        done = cli("sandbox", argv[0], sandbox, *argv[1:])
        assert done.code == 1
        assert "prc_none" in done.err

    def test_a_time_limit_is_none_of_its(self, cli: Cli, sandbox: str) -> None:
        assert cli("sandbox", "exec", sandbox, "-d", "--timeout", "9", "--", "true").code == 2


class TestAsleep:
    """In a sandbox that was paused before it could say how its processes stand."""

    @pytest.fixture
    def name(
        self,
        cli: Cli,
        rt: RunTools,
        sandbox: str,
        platform: Platform,
        monkeypatch: pytest.MonkeyPatch,
    ) -> str:
        made = start(cli, sandbox, "sh", "-c", "echo hello; exec sleep 600")
        process = rt.sandboxes.get(sandbox).processes.get(made)
        until = time.monotonic() + 60
        while not process.refresh().view.output.end:
            assert time.monotonic() < until
        rt.sandboxes.get(sandbox).pause()
        nobody_knows(platform.world.host, monkeypatch)
        return made

    def test_kill_wakes_it(self, cli: Cli, rt: RunTools, sandbox: str, name: str) -> None:
        cli.ok("sandbox", "kill", sandbox, name, "-s", "KILL")
        assert wakes(rt, sandbox)
        assert rt.sandboxes.get(sandbox).processes.get(name).wait(timeout=60).signal == 9

    def test_its_output_wakes_it(self, cli: Cli, rt: RunTools, sandbox: str, name: str) -> None:
        assert cli.ok("sandbox", "logs", sandbox, name).out == b"hello\n"
        assert wakes(rt, sandbox)

    def test_who_follows_is_told_and_wakes_nothing(
        self, cli: Cli, rt: RunTools, sandbox: str, name: str, platform: Platform
    ) -> None:
        process = platform.world.host.machines[sandbox].inside.processes.find(name)
        platform.loop.call_soon_threadsafe(process.send_signal, "opn_kill", 9)
        done = cli.ok("sandbox", "logs", sandbox, name, "--follow")
        assert done.out == b"hello\n"
        assert f"`runtools sandbox resume {sandbox}` wakes it" in done.err
        assert rt.sandboxes.get(sandbox).state == "paused"

    def test_a_look_says_what_to_do(self, cli: Cli, rt: RunTools, sandbox: str, name: str) -> None:
        done = cli("sandbox", "ps", sandbox)
        assert done.code == 1
        assert f"runtools sandbox resume {sandbox}" in done.err
        assert rt.sandboxes.get(sandbox).state == "paused"


class TestSdk:
    def test_a_conversation(self, rt: RunTools, sandbox: str) -> None:
        box = rt.sandboxes.get(sandbox)
        process = box.processes.start("read a; echo got $a; cat; exit 3")
        assert process.send_input("hé\n") == 4
        process.send_input(b"x" * 100_000)
        process.close_input()
        # From the beginning: what lies beyond what it has written by now would be refused.
        assert b"".join(process.follow()) == "got hé\n".encode() + b"x" * 100_000
        ended = process.wait(timeout=20)
        assert b"".join(process.follow(4)) == "hé\n".encode() + b"x" * 100_000
        assert (ended.exit_code, process.state) == (3, "ended")
        assert process.output() == "got hé\n".encode() + b"x" * 100_000
        assert box.processes.get(process.id).view == ended
        with pytest.raises(InvalidRequest) as caught:
            process.output(200_000)
        assert caught.value.details["end"] == ended.output.end

    def test_more_than_one_read_of_output(self, rt: RunTools, sandbox: str) -> None:
        process = rt.sandboxes.get(sandbox).processes.start("head -c 2500000 /dev/zero")
        assert process.wait(timeout=20).exit_code == 0
        assert process.output(1) == bytes(2_499_999)

    def test_what_is_dropped_is_missing_in_front(self, rt: RunTools, sandbox: str) -> None:
        process = rt.sandboxes.get(sandbox).processes.start(
            "head -c 20000 /dev/zero; printf end", keep_output_bytes=4096
        )
        ended = process.wait(timeout=20)
        data = process.output()
        assert data.endswith(b"end")
        assert len(data) == ended.output.end - ended.output.kept_from < 20003
