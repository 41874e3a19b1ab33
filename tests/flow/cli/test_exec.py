"""`runtools sandbox exec`: arguments, streams and the exit code pass through unchanged."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtools import AsyncRunTools, RunTools
from runtools.errors import SandboxPaused, WaitsForRoom

Cli = Any  # the fixture of conftest.py

ODD = [
    "a b",
    "",
    "'single' \"double\" \\back",
    "$HOME `id` $(id) ${x} !!",
    "line\nline\n",
    "\ttab\r",
    "héllo ✓ 🙂",
    "-n",
    "--json",
    "--",
    "-",
    "*",
    "~",
    ";|&<>",
    "\x01\x7f",
]


class TestArguments:
    def test_they_pass_unchanged(self, cli: Cli, sandbox: str) -> None:
        done = cli.ok("sandbox", "exec", sandbox, "--", "printf", "%s\\0", *ODD)
        assert done.text.split("\0")[:-1] == ODD
        assert done.err == ""

    def test_options_may_follow_the_sandbox(self, cli: Cli, sandbox: str) -> None:
        done = cli.ok(
            "sandbox", "exec", sandbox, "--env", "A=b=c", "--cwd", "/", "--", "sh", "-c", "echo $A"
        )
        assert done.text == "b=c\n"

    def test_a_second_dash_dash_is_an_argument(self, cli: Cli, sandbox: str) -> None:
        assert cli.ok("sandbox", "exec", sandbox, "--", "echo", "--", "x").text == "-- x\n"

    def test_a_line_for_a_shell(self, cli: Cli, sandbox: str) -> None:
        assert cli.ok("sandbox", "exec", sandbox, "-c", "echo $((6*7)) | cat").text == "42\n"

    @pytest.mark.parametrize("argv", [[], ["-c", "true", "--", "true"]])
    def test_one_command_and_only_one(self, cli: Cli, sandbox: str, argv: list[str]) -> None:
        done = cli("sandbox", "exec", sandbox, *argv)
        assert done.code == 2
        assert "either" in done.err

    def test_what_is_no_text_is_refused(self, cli: Cli, sandbox: str) -> None:
        done = cli("sandbox", "exec", sandbox, "--", "echo", b"\xff")
        assert done.code == 125
        assert "not Unicode" in done.err

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=6))
    def test_any_text_passes_through_the_sdk(
        self, rt: RunTools, sandbox: str, argv: list[str]
    ) -> None:
        result = rt.sandboxes.get(sandbox).exec(["printf", "%s\\0", "", *argv])
        assert result.stdout_bytes.decode().split("\0")[1:-1] == argv


class TestExitCode:
    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ("true", 0),
            ("exit 3", 3),
            ("exit 255", 255),
            ("kill -9 $$", 137),
            ("kill -TERM $$", 143),
        ],
    )
    def test_it_is_the_commands(self, cli: Cli, sandbox: str, line: str, code: int) -> None:
        assert cli("sandbox", "exec", sandbox, "-c", line).code == code

    def test_a_program_that_is_not_there(self, cli: Cli, sandbox: str) -> None:
        done = cli("sandbox", "exec", sandbox, "--", "no-such-program")
        assert done.code == 127
        assert "no-such-program" in done.err
        left = cli("sandbox", "exec", sandbox, "--detach", "--", "no-such-program")
        assert left.code == 127

    def test_one_that_may_not_be_run(self, cli: Cli, sandbox: str) -> None:
        assert cli("sandbox", "exec", sandbox, "--", "/etc/passwd").code == 126

    def test_a_folder_that_is_not_there_is_no_program(self, cli: Cli, sandbox: str) -> None:
        assert cli("sandbox", "exec", sandbox, "--cwd", "/none", "--", "true").code == 125

    def test_time_is_up(self, cli: Cli, sandbox: str) -> None:
        done = cli("sandbox", "exec", sandbox, "--timeout", "0.2", "--", "sleep", "9")
        assert done.code == 124
        assert "killed" in done.err

    def test_no_such_sandbox_is_the_platforms_failure(self, cli: Cli) -> None:
        done = cli("sandbox", "exec", "nobody", "--", "true")
        assert done.code == 125
        assert done.err.startswith("error: ")
        assert "hint:" in done.err

    def test_so_is_a_platform_that_is_down(self, cli: Cli) -> None:
        done = cli("sandbox", "exec", "x", "--", "true", RUNTOOLS_API_URL="http://127.0.0.1:9")
        assert done.code == 125
        assert "runtools up" in done.err

    def test_and_a_sandbox_that_has_ended(self, cli: Cli, rt: RunTools) -> None:
        ended = rt.sandboxes.create()
        ended.destroy()
        assert cli("sandbox", "exec", ended.id, "--", "true").code == 125


class Terminal:
    """The command as a process that signals can be sent to."""

    def __init__(self, cli: Cli, *argv: str) -> None:
        program = "from runtools.cli import main; import sys; sys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "sandbox", "exec", *argv],
            env=cli.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def end(self) -> tuple[int, bytes, bytes]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


class TestInterrupts:
    def test_the_first_is_the_commands_and_its_output_comes(
        self, cli: Cli, rt: RunTools, sandbox: str
    ) -> None:
        line = "trap 'echo tidied; exit 7' INT; touch begun; while :; do sleep 0.05; done"
        terminal = Terminal(cli, sandbox, "-c", line)
        _begun(rt, sandbox)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end()[:2] == (7, b"tidied\n")

    def test_who_does_nothing_about_it_ends(self, cli: Cli, rt: RunTools, sandbox: str) -> None:
        terminal = Terminal(cli, sandbox, "--", "sh", "-c", "touch begun; sleep 1000")
        _begun(rt, sandbox)
        terminal.process.send_signal(signal.SIGTERM)
        code, _, err = terminal.end()
        assert code == 128 + signal.SIGTERM
        assert b"SIGTERM goes to the command" in err

    def test_the_second_kills_who_does_not_care(self, cli: Cli, rt: RunTools, sandbox: str) -> None:
        line = "trap '' INT; touch begun; echo here; while :; do sleep 0.05; done"
        terminal = Terminal(cli, sandbox, "-c", line)
        _begun(rt, sandbox)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.stderr is not None
        assert b"once more kills it" in terminal.process.stderr.readline()
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end()[:2] == (137, b"here\n")


class TestAgain:
    """What was left under way is asked for by its name, and not run again."""

    def test_it_is_named_where_that_helps(
        self, cli: Cli, sandbox: str, platform: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host, words = platform.world.host, ["-c", "echo once >> n; cat n"]

        def paused(request: Any) -> None:
            raise SandboxPaused("it was paused because its host's disk was almost full")

        with monkeypatch.context() as patch:
            patch.setattr(host, "script", paused)
            done = cli("sandbox", "exec", sandbox, *words)
        assert done.code == 125
        assert "its host's disk was almost full" in done.err
        (name,) = re.findall("--process-id (prc_[a-z0-9]+) asks for the same", done.err)
        for _ in range(2):
            again = cli.ok("sandbox", "exec", sandbox, "--process-id", name, *words)
            assert again.text == "once\n"

    def test_one_that_was_not_begun_for_want_of_room_is_made_once_there_is(
        self, cli: Cli, sandbox: str, platform: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        came = []

        def full(request: Any) -> Any:
            came.append(request.process_id)
            monkeypatch.undo()
            raise WaitsForRoom(f"{sandbox} waits for room on its host")

        monkeypatch.setattr(platform.world.host, "script", full)
        assert cli.ok("sandbox", "exec", sandbox, "-c", "echo once").text == "once\n"
        assert len(came) == 1

    def test_one_that_is_detached_is_given_its_id(self, cli: Cli, sandbox: str) -> None:
        done = cli("sandbox", "exec", sandbox, "--detach", "--process-id", "prc_1", "--", "true")
        assert done.code == 2


class TestLeft:
    """A call of the SDK that is left ends its command."""

    LINE = "touch begun; while :; do date +%N > alive; sleep 0.02; done"

    async def test_by_a_cancelled_task(self, platform: Any, rt: RunTools, sandbox: str) -> None:
        async with AsyncRunTools(platform.key, platform.url) as art:
            box = await art.sandboxes.get(sandbox)
            task = asyncio.create_task(box.exec(self.LINE))
            await asyncio.to_thread(_begun, rt, sandbox)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        _still(rt, sandbox)

    def test_by_an_interrupt(self, cli: Cli, rt: RunTools, sandbox: str) -> None:
        program = (
            "import runtools, sys\n"
            "with runtools.RunTools() as rt: rt.sandboxes.get(sys.argv[1]).exec(sys.argv[2])"
        )
        argv = [sys.executable, "-c", program, sandbox, self.LINE]
        with subprocess.Popen(argv, env=cli.env, stderr=subprocess.PIPE) as process:
            _begun(rt, sandbox)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert b"KeyboardInterrupt" in err
        _still(rt, sandbox)


def _begun(rt: RunTools, sandbox: str) -> None:
    rt.sandboxes.get(sandbox).exec("until [ -e begun ]; do sleep 0.02; done")


def _still(rt: RunTools, sandbox: str) -> None:
    """The loop of `TestLeft` writes no more."""
    line = 'a=$(cat alive); sleep 0.3; [ "$a" = "$(cat alive)" ]'
    assert rt.sandboxes.get(sandbox).exec(line).exit_code == 0


class TestStreams:
    def test_bytes_come_out_unaltered_each_on_its_own(self, cli: Cli, sandbox: str) -> None:
        program = "import os; os.write(1, bytes(range(256))); os.write(2, b'no newline')"
        done = cli.ok("sandbox", "exec", sandbox, "--", "python3", "-c", program)
        assert done.out == bytes(range(256))
        assert done.err == "no newline"

    def test_what_is_piped_goes_in(self, cli: Cli, sandbox: str) -> None:
        data = os.urandom(100_000)
        assert cli.ok("sandbox", "exec", sandbox, "--", "cat", stdin=data).out == data

    def test_unless_it_shall_not(self, cli: Cli, sandbox: str) -> None:
        assert cli.ok("sandbox", "exec", sandbox, "--no-stdin", "--", "cat", stdin=b"x").out == b""

    def test_an_open_silent_pipe_is_explained(self, cli: Cli, sandbox: str) -> None:
        argv = [
            "-c",
            "from runtools.cli import main; main()",
            "sandbox",
            "exec",
            sandbox,
            "--",
            "cat",
        ]
        with subprocess.Popen(
            [sys.executable, *argv],
            env=cli.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            assert b"--no-stdin" in process.stderr.readline()
            out, _ = process.communicate(b"late", timeout=30)
        assert out == b"late"

    def test_json_has_all_of_it(self, cli: Cli, sandbox: str) -> None:
        done = cli("sandbox", "exec", sandbox, "--json", "-c", "echo out; echo err >&2; exit 4")
        assert done.code == 4
        assert done.data["stdout"] == "out\n"
        assert (done.data["stderr"], done.data["exitCode"], done.data["timedOut"]) == (
            "err\n",
            4,
            False,
        )
        assert done.err == ""

    def test_a_paused_one_is_woken(self, cli: Cli, sandbox: str) -> None:
        cli.ok("sandbox", "pause", sandbox)
        assert cli.ok("sandbox", "exec", sandbox, "--", "echo", "awake").text == "awake\n"
