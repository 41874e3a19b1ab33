"""The agent is killed at bad moments; the next one says what it knows and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from runtools.guest import protocol

from .conftest import Agent, until


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _start(agent: Agent, name: str, line: str, timeout_ms: int = 30_000) -> dict[str, object]:
    """A command under way, and the request that began it."""
    request = {"do": "exec", "id": name, "command": line, "cwd": "/", "timeout_ms": timeout_ms}
    agent.talk().send(request)
    until((agent.root / "root/pid").exists)
    until(lambda: bool((agent.root / "root/pid").read_text()))
    # Whom the next agent is to look after is noted a moment after it has begun.
    until(lambda: _is_noted(agent))
    return request


def _is_noted(agent: Agent) -> bool:
    wanted = (b'"group"', b'"pid":%d' % _pid(agent), b'"pid": %d' % _pid(agent))
    kept = [file.read_bytes() for file in agent.state.rglob("*") if file.is_file()]
    return any(word in text for word in wanted for text in kept)


def _pid(agent: Agent) -> int:
    return int((agent.root / "root/pid").read_text())


class TestCommands:
    def test_one_that_ended_is_answered_by_the_next_agent(self, agent: Agent) -> None:
        first = agent.talk().exec("a", "echo once >> $HOME/log; printf '\\377'")
        agent.restart()
        assert agent.talk().exec("a", "echo once >> $HOME/log; printf '\\377'") == first
        assert (agent.root / "root/log").read_text() == "once\n"

    def test_one_that_still_runs_is_said_to(self, agent: Agent) -> None:
        request = _start(agent, "a", "echo $$ > $HOME/pid; sleep 71; true")
        agent.restart()
        error = agent.talk().ask(request)["error"]
        assert error["code"] == "outcome_unknown"
        assert error["details"] == {"running": True, "pid": _pid(agent)}
        os.kill(_pid(agent), signal.SIGKILL)
        until(lambda: agent.talk().ask(request)["error"]["details"]["running"] is False)

    def test_one_that_ended_unseen_is_said_to(self, agent: Agent) -> None:
        request = _start(agent, "a", "echo $$ > $HOME/pid; sleep 72; true")
        agent.kill()
        os.kill(_pid(agent), signal.SIGKILL)
        until(lambda: not _runs(_pid(agent)))
        agent.restart()
        error = agent.talk().ask(request)["error"]
        assert (error["code"], error["details"]["running"]) == ("outcome_unknown", False)

    def test_the_deadline_still_holds(self, agent: Agent) -> None:
        _start(agent, "a", "echo $$ > $HOME/pid; sleep 73; true", timeout_ms=2500)
        pid = _pid(agent)
        agent.restart()
        assert _runs(pid)
        until(lambda: not _runs(pid))

    def test_with_groups_all_of_it_dies_at_the_deadline(self, grouped: Agent) -> None:
        line = "setsid sh -c 'setsid sleep 74 & echo $! > $HOME/pid; sleep 75' & exit 0"
        request = _start(grouped, "a", line, timeout_ms=2500)
        # The line itself has ended: what it left behind may live.
        assert grouped.talk().ask(request)["ok"]["exit_code"] == 0
        kept = _pid(grouped)
        (grouped.root / "root/pid").unlink()
        line = "setsid sh -c 'setsid sleep 76 & echo $! > $HOME/pid'; sleep 77"
        request = _start(grouped, "b", line, timeout_ms=2500)
        pid = _pid(grouped)
        grouped.restart()
        assert grouped.talk().ask(request)["error"]["details"]["running"] is True
        until(lambda: not _runs(pid))
        assert _runs(kept)
        until(lambda: grouped.talk().ask(request)["error"]["details"]["running"] is False)

    def test_a_group_that_another_has_by_now_is_not_killed_at_the_old_deadline(
        self, grouped: Agent
    ) -> None:
        _start(grouped, "a", "echo $$ > $HOME/pid; exec sleep 300", timeout_ms=4000)
        old = _pid(grouped)
        grouped.restart()
        os.kill(old, signal.SIGKILL)
        until(lambda: not _runs(old))
        # More than are spare: one of them would be given the group that is empty now.
        lines = [f"echo $$ > $HOME/{n}; sleep 6; rm $HOME/{n}; echo done" for n in range(4)]
        talks = [grouped.talk() for _ in lines]
        for n, (talk, line) in enumerate(zip(talks, lines, strict=True)):
            talk.send({"do": "exec", "id": f"b{n}", "command": line, "cwd": "/"})
        for n in range(len(lines)):
            until((grouped.root / f"root/{n}").exists)
        for talk in talks:
            assert (talk.answer()["ok"]["exit_code"], talk.body()) == (0, b"done\n")

    def test_neither_is_it_by_the_agent_after_that(self, grouped: Agent) -> None:
        ended = _start(grouped, "a", "echo $$ > $HOME/pid; exec sleep 300", timeout_ms=1500)
        old = _pid(grouped)
        grouped.restart()
        until(lambda: not _runs(old))
        request = {"do": "process_start", "cwd": "/", "command": "exec sleep 300"}
        pids = [grouped.talk().ask({**request, "id": f"{n}"})["ok"]["pid"] for n in range(4)]
        grouped.restart()
        talk = grouped.talk()
        error = talk.ask(ended)["error"]
        assert (error["code"], error["details"]) == ("outcome_unknown", {"running": False})
        for n, pid in enumerate(pids):
            assert talk.do("process", process=f"{n}")["state"] == "running"
            assert _runs(pid)


class TestFiles:
    def test_a_half_written_one_leaves_the_old(self, agent: Agent) -> None:
        (agent.root / "f").write_text("old")
        talk = agent.talk()
        request = {"do": "write", "id": "a", "path": "/f"}
        assert talk.ask(request) == {"go": True}
        talk.sock.sendall(protocol.frame(protocol.BYTES, bytes(1 << 20)))
        until(lambda: len(list(agent.root.iterdir())) == 5)
        agent.restart()
        assert agent.talk().ask(request)["error"]["code"] == "outcome_unknown"
        assert (agent.root / "f").read_text() == "old"
        assert sorted(p.name for p in agent.root.iterdir()) == ["etc", "f", "root", "workspace"]
        assert agent.talk().write("b", "/f", b"new")["ok"]["size"] == 3

    def test_one_that_was_written_is_answered(self, agent: Agent) -> None:
        first = agent.talk().write("a", "/f", b"one", how="append")
        agent.restart()
        assert agent.talk().write("a", "/f", b"one", how="append") == first
        assert (agent.root / "f").read_bytes() == b"one"

    def test_random_kills_never_do_an_append_twice(self, agent: Agent) -> None:
        for n in range(8):
            request = {"do": "write", "id": f"{n}", "path": "/f", "how": "append"}
            talk = agent.talk()
            assert talk.ask(request) == {"go": True}
            talk.send_body(b"%d" % n)
            if n % 2:
                talk.answer()
            agent.restart()
            said = agent.talk().ask(request)
            if "go" not in said and "error" in said:
                assert said["error"]["code"] == "outcome_unknown"
        written = (agent.root / "f").read_text()
        assert all(written.count(str(n)) <= 1 for n in range(8))
        assert all(str(n) in written for n in range(1, 8, 2))
