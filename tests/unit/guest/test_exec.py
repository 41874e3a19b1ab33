from __future__ import annotations

import os
import pwd
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Agent, Talk, until

ROOT = os.geteuid() == 0


class TestResults:
    def test_streams_are_kept_apart(self, talk: Talk) -> None:
        ran = talk.exec("a", "echo out; echo err >&2; exit 3")
        assert (ran["out"], ran["err"]) == (b"out\n", b"err\n")
        assert (ran["exit_code"], ran["signal"], ran["timed_out"]) == (3, None, False)

    def test_a_list_of_words_reaches_the_program_unchanged(self, talk: Talk) -> None:
        words = ["a b", "$HOME", "'", '"', "*", "", "ü\n"]
        assert talk.exec("a", ["printf", "%s|", *words])["out"].decode() == "|".join([*words, ""])

    def test_a_line_that_looks_like_an_option_is_a_line(self, talk: Talk) -> None:
        assert talk.exec("a", "-x")["exit_code"] == 127

    def test_bytes_come_as_they_are(self, talk: Talk) -> None:
        assert talk.exec("a", r"printf '\000\377\n'")["out"] == b"\0\xff\n"

    def test_a_signal_leaves_no_exit_code(self, talk: Talk) -> None:
        ran = talk.exec("a", "kill -SEGV $$")
        assert (ran["exit_code"], ran["signal"]) == (None, signal.SIGSEGV)

    def test_the_shell_speaks_for_missing_programs_in_a_line(self, talk: Talk) -> None:
        ran = talk.exec("a", "no-such-program")
        assert ran["exit_code"] == 127
        assert b"no-such-program" in ran["err"]

    def test_stdin(self, talk: Talk) -> None:
        data = os.urandom(3 << 20)
        assert talk.exec("a", "cat", stdin=data)["out"] == data

    def test_stdin_that_nobody_reads(self, talk: Talk) -> None:
        assert talk.exec("a", "exec <&-; echo ok", stdin=bytes(1 << 20))["out"] == b"ok\n"

    def test_no_stdin_is_an_empty_one(self, talk: Talk) -> None:
        assert talk.exec("a", "cat")["exit_code"] == 0

    def test_signals_are_as_a_program_expects_them(self, talk: Talk) -> None:
        # Python ignores SIGPIPE; `yes` must not.
        assert talk.exec("a", "set -o pipefail; yes | head -1")["exit_code"] == 128 + signal.SIGPIPE
        ignored = talk.exec("b", ["grep", "-E", "SigIgn|SigBlk", "/proc/self/status"])["out"]
        # The C library itself ignores 32 and 33, which are its own.
        assert [int(word, 16) & 0x7FFFFFFF for word in ignored.split()[1::2]] == [0, 0]

    def test_no_descriptor_of_the_agent_leaks(self, talk: Talk) -> None:
        listed = talk.exec("a", ["ls", "/proc/self/fd"])["out"].split()
        assert listed == [b"0", b"1", b"2", b"3"]  # 3 is the listing's own


class TestEnvironment:
    def test_is_small_and_of_the_machine(self, agent: Agent, talk: Talk) -> None:
        names = {
            line.split(b"=")[0] for line in talk.exec("a", ["env"])["out"].split(b"\n") if line
        }
        assert names == {b"PATH", b"LANG", b"HOME", b"USER", b"LOGNAME", b"SHELL"}

    def test_what_is_given_comes_on_top(self, talk: Talk) -> None:
        ran = talk.exec("a", "echo $A $LANG", env={"A": "ä=1", "LANG": "C"})
        assert ran["out"].decode() == "ä=1 C\n"

    def test_cwd(self, agent: Agent, talk: Talk) -> None:
        ran = talk.exec("a", "pwd", cwd="/workspace")
        assert ran["out"].decode() == f"{agent.root}/workspace\n"

    def test_a_program_is_found_relative_to_cwd(self, agent: Agent, talk: Talk) -> None:
        script = agent.root / "workspace/run"
        script.write_text("#!/bin/sh\necho here\n")
        script.chmod(0o755)
        assert talk.exec("a", ["./run"], cwd="/workspace")["out"] == b"here\n"

    @pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
    def test_another_user(self, agent: Agent, talk: Talk) -> None:
        agent.root.parent.chmod(0o711)
        ran = talk.exec("a", "id -u; id -g; echo $HOME $USER", user="nobody")
        nobody = pwd.getpwnam("nobody")
        uid, gid, rest = ran["out"].decode().splitlines()
        assert (int(uid), int(gid)) == (nobody.pw_uid, nobody.pw_gid)
        assert rest == f"{agent.root}{nobody.pw_dir} nobody"


class TestRefusals:
    @pytest.mark.parametrize(
        ("command", "fields", "code"),
        [
            (["no-such-program"], {}, "file_missing"),
            (["/no/such/program"], {}, "file_missing"),
            (["/etc/passwd"], {}, "file_forbidden"),
            (["/etc"], {}, "file_forbidden"),
            ("true", {"cwd": "/missing"}, "file_missing"),
            ("true", {"cwd": "/etc/file"}, "file_not_directory"),
            ("true", {"cwd": "relative"}, "invalid_path"),
            ("true", {"cwd": "/a/../b"}, "invalid_path"),
            ("true", {"user": "nobody-of-that-name"}, "invalid_request"),
            ("true", {"user": "a\0b"}, "invalid_request"),
            ("a\0b", {}, "invalid_request"),
            (["echo", "a\0b"], {}, "invalid_request"),
            ("true", {"env": {"A": "\0"}}, "invalid_request"),
            ("true", {"env": ["A"]}, "invalid_request"),
            ([], {}, "invalid_request"),
            (7, {}, "invalid_request"),
            (["true", 7], {}, "invalid_request"),
            ("true", {"timeout_ms": -1}, "invalid_request"),
            ("true", {"timeout_ms": "soon"}, "invalid_request"),
            ("echo \ud800", {}, "invalid_request"),
            ("true", {"env": {"A": "x" * (3 << 20)}}, "too_large"),
        ],
    )
    def test_have_a_name(
        self, agent: Agent, talk: Talk, command: object, fields: dict[str, Any], code: str
    ) -> None:
        (agent.root / "etc/file").touch()
        assert talk.exec("a", command, **fields)["code"] == code
        assert talk.exec("b", "echo fine")["out"] == b"fine\n"

    def test_a_script_without_its_interpreter(self, agent: Agent, talk: Talk) -> None:
        script = agent.root / "run"
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        error = talk.exec("a", [str(script)])
        assert error["code"] == "file_missing"
        assert "interpreter" in error["message"]

    def test_an_executable_that_is_none(self, agent: Agent, talk: Talk) -> None:
        script = agent.root / "run"
        script.write_text("\x7fELFnonsense")
        script.chmod(0o755)
        assert talk.exec("a", [str(script)])["code"] == "file_forbidden"

    def test_refusals_leave_nothing(self, grouped: Agent) -> None:
        talk = grouped.talk()
        assert grouped.process is not None
        files = Path(f"/proc/{grouped.process.pid}/fd")

        def refuse(name: str) -> None:
            for n, (command, cwd) in enumerate(
                ((["/no/such"], "/"), (["no-such"], "/"), ("true", "/missing"), (["/etc"], "/"))
            ):
                error = talk.exec(f"{name}.{n}", command, cwd=cwd)
                assert error["code"] in {"file_missing", "file_forbidden"}, error

        refuse("first")
        groups, opened = _groups(grouped), len(list(files.iterdir()))
        for n in range(10):
            refuse(f"{n}")
        assert (_groups(grouped), len(list(files.iterdir()))) == (groups, opened)


class TestBounds:
    def test_what_exceeds_the_bound_is_dropped_and_said(self, talk: Talk) -> None:
        ran = talk.exec("a", "seq 100000; seq 100000 >&2", max_output=1000)
        assert (ran["stdout"], ran["stderr"], ran["truncated"]) == (1000, 1000, True)
        assert ran["exit_code"] == 0
        assert ran["out"].startswith(b"1\n2\n")

    def test_what_fits_exactly_is_whole(self, talk: Talk) -> None:
        ran = talk.exec("a", "printf 12345", max_output=5)
        assert (ran["out"], ran["truncated"]) == (b"12345", False)

    def test_nothing_may_be_kept(self, talk: Talk) -> None:
        ran = talk.exec("a", "echo x", max_output=0)
        assert (ran["out"], ran["truncated"]) == (b"", True)

    def test_a_flood_until_the_timeout_leaves_the_agent_small(
        self, agent: Agent, talk: Talk
    ) -> None:
        ran = talk.exec("a", "yes", timeout_ms=700, max_output=1 << 16)
        assert (ran["timed_out"], ran["truncated"], ran["stdout"]) == (True, True, 1 << 16)
        assert agent.process is not None
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 200_000

    def test_too_much_stdin_is_refused(self, talk: Talk) -> None:
        said = talk.ask({"do": "exec", "id": "a", "command": "cat", "stdin": 1 << 30})
        assert said["error"]["code"] == "too_large"


class TestTimeout:
    def test_kills_and_says_so(self, talk: Talk) -> None:
        began = time.monotonic()
        ran = talk.exec("a", "echo before; sleep 60", timeout_ms=300)
        assert (ran["timed_out"], ran["signal"], ran["exit_code"]) == (True, signal.SIGKILL, None)
        assert ran["out"] == b"before\n"
        assert 0.3 <= time.monotonic() - began < 5

    def test_without_groups_kills_session_and_children(self, agent: Agent, talk: Talk) -> None:
        line = "(sleep 61 & echo $!; sleep 62 & echo $!; setsid sleep 63 & echo $!; wait)"
        ran = talk.exec("a", line, timeout_ms=400)
        _all_gone(ran["out"])

    def test_with_groups_kills_however_it_forked(self, grouped: Agent) -> None:
        talk = grouped.talk()
        assert talk.hello["ok"]["features"]["kill"] == "cgroup"
        # Neither in the session nor a descendant any more.
        line = "setsid sh -c 'setsid sleep 64 & echo $!'; setsid sleep 65 & echo $!; sleep 66"
        ran = talk.exec("a", line, timeout_ms=400)
        assert ran["timed_out"]
        _all_gone(ran["out"])

    def test_a_fork_bomb_ends_and_the_agent_answers(self, grouped: Agent) -> None:
        talk = grouped.talk()
        # Bounded by hand: this machine's groups may have no pids controller.
        line = "ulimit -u 400; f() { f | f & }; f; sleep 60"
        ran = talk.exec("a", line, timeout_ms=500, user="nobody" if ROOT else "root")
        assert ran["timed_out"]
        assert talk.exec("b", "echo alive")["out"] == b"alive\n"


class TestSignal:
    def test_goes_to_all_that_the_command_started(self, agent: Agent, talk: Talk) -> None:
        other = agent.talk()
        line = "trap 'echo told; exit 5' INT; echo; sleep 60 & touch $HOME/begun; wait"
        _begin(other, "a", line)
        until((agent.root / "root/begun").exists)
        talk.do("exec_signal", id="s", exec="a", signal=signal.SIGINT)
        ran = other.answer()["ok"]
        assert (ran["exit_code"], ran["timed_out"]) == (5, False)
        assert other.body() == b"\ntold\n"

    def test_a_kill_ends_it_however_it_forked(self, grouped: Agent) -> None:
        other, talk = grouped.talk(), grouped.talk()
        _begin(other, "a", "setsid sh -c 'setsid sleep 61 & echo $!'; touch $HOME/begun; sleep 62")
        until((grouped.root / "root/begun").exists)
        talk.do("exec_signal", id="s", exec="a", signal=signal.SIGKILL)
        ran = other.answer()["ok"]
        assert (ran["signal"], ran["timed_out"]) == (signal.SIGKILL, False)
        _all_gone(other.body())

    def test_a_repeat_of_it_is_answered_and_sends_nothing(self, agent: Agent, talk: Talk) -> None:
        other = agent.talk()
        # No `$(seq)`: a signal that comes while it is computed would leave nothing to loop over.
        line = "trap 'echo told' USR1; touch $HOME/begun; while :; do sleep 0.05; done"
        _begin(other, "a", line)
        until((agent.root / "root/begun").exists)
        for _ in range(3):
            talk.do("exec_signal", id="s", exec="a", signal=signal.SIGUSR1)
        talk.do("exec_signal", id="k", exec="a", signal=signal.SIGTERM)
        other.answer()
        assert other.body().count(b"told") <= 1

    def test_one_that_has_ended_is_said_to_have(self, talk: Talk) -> None:
        talk.exec("a", "true")
        assert talk.fail("exec_signal", id="s", exec="a", signal=9) == "process_ended"
        assert talk.exec("a", "true")["exit_code"] == 0  # its answer stands

    def test_one_that_comes_afterwards_is_never_begun(self, agent: Agent, talk: Talk) -> None:
        talk.do("exec_signal", id="s", exec="a", signal=2)
        assert talk.exec("a", "touch $HOME/begun")["code"] == "process_ended"
        assert not (agent.root / "root/begun").exists()
        agent.restart()
        assert agent.talk().exec("a", "touch $HOME/begun")["code"] == "process_ended"

    @pytest.mark.parametrize("groups", [True, False])
    def test_one_whose_agent_died_is_reached(
        self, groups: bool, request: pytest.FixtureRequest
    ) -> None:
        agent: Agent = request.getfixturevalue("grouped" if groups else "agent")
        _begin(agent.talk(), "a", "echo $$ > $HOME/pid; sleep 60; true")
        pid = agent.root / "root/pid"
        until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        agent.restart()
        agent.talk().do("exec_signal", id="s", exec="a", signal=9)
        _all_gone(pid.read_bytes())
        until(
            lambda: agent.talk().fail("exec_signal", id="t", exec="a", signal=9) == "process_ended"
        )

    @pytest.mark.parametrize(
        "fields", [{"signal": 0}, {"signal": 65}, {"exec": "a b"}, {"exec": 1}]
    )
    def test_what_cannot_be_meant(self, talk: Talk, fields: dict[str, Any]) -> None:
        wanted = {"id": "s", "exec": "a", "signal": 9} | fields
        assert talk.fail("exec_signal", **wanted) == "invalid_request"


class TestBackground:
    def test_the_answer_does_not_wait_for_who_keeps_the_pipe(
        self, agent: Agent, talk: Talk
    ) -> None:
        began = time.monotonic()
        ran = talk.exec("a", "echo first; (sleep 30; echo late) & echo $!")
        assert time.monotonic() - began < 5
        assert ran["exit_code"] == 0
        first, pid = ran["out"].split()
        assert first == b"first"
        os.kill(int(pid), signal.SIGKILL)

    def test_who_is_left_behind_can_go_on_printing(self, agent: Agent, talk: Talk) -> None:
        before = talk.do("activity")["output"]
        line = (
            '(while [ ! -e "$HOME/stop" ]; do echo tick; sleep 0.01; done; touch "$HOME/ended") &'
        )
        assert talk.exec("a", line)["exit_code"] == 0
        until(lambda: talk.do("activity")["output"] > before + 50)
        (agent.root / "root/stop").touch()
        until((agent.root / "root/ended").exists)

    def test_a_group_in_which_something_lives_is_not_used_again(self, grouped: Agent) -> None:
        talk = grouped.talk()
        show = "grep ^0:: /proc/self/cgroup"
        left = talk.exec("a", f"sleep 67 & {show}")["out"]
        others = {talk.exec(f"b{i}", show)["out"] for i in range(4)}
        assert left not in others
        assert len(others) < 4  # the empty ones are

    def test_running_commands_are_counted(self, agent: Agent, talk: Talk) -> None:
        other = agent.talk()
        other.send({"do": "exec", "id": "a", "command": "sleep 68", "cwd": "/", "timeout_ms": 5000})
        until(lambda: talk.do("activity")["running"] == 1)


def _begin(talk: Talk, name: str, line: str) -> None:
    talk.send({"do": "exec", "id": name, "command": line, "cwd": "/"})


def _all_gone(pids: bytes) -> None:
    found = [int(word) for word in pids.split()]
    assert found
    for pid in found:
        until(lambda pid=pid: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _groups(agent: Agent) -> list[str]:
    assert agent.groups is not None
    return sorted(str(each) for each in agent.groups.rglob("*") if each.is_dir())
