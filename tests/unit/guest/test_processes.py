"""Durable processes as the agent serves them, and what is left of them when agent or holder are killed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from runtools.guest import procs, protocol
from runtools.guest.protocol import BYTES

from .conftest import Agent, Talk, until


def start(talk: Talk, name: str, command: object, **fields: object) -> Any:
    return talk.do("process_start", id=name, command=command, cwd="/", **fields)


def wait(talk: Talk, name: str) -> Any:
    seen = talk.do("process_wait", process=name, timeout_ms=20_000)
    assert seen["state"] != "running", seen
    return seen


def read(talk: Talk, name: str, stream: str = "output", at: int = 0, limit: int = 1 << 20) -> Any:
    head = talk.do("process_output", process=name, stream=stream, start=at, limit=limit)
    if not head["size"]:
        return head, b""
    kind, data = talk.frame()
    assert (kind, len(data)) == (BYTES, head["size"])
    return head, data


def give(talk: Talk, name: str, op: str, data: bytes) -> Any:
    talk.send({"do": "process_input", "id": op, "process": name})
    talk.send_body(data)
    return talk.answer()


def act(talk: Talk, name: str, what: str, op: str, **fields: object) -> Any:
    return talk.do(f"process_{what}", process=name, id=op, **fields)


def follow(talk: Talk, name: str, at: int = 0, stream: str = "output") -> Iterator[Any]:
    """Pieces as (offset, dropped, data), at last the process."""
    talk.send({"do": "process_follow", "process": name, "stream": stream, "start": at})
    while True:
        said = talk.answer()
        assert "ok" in said, said
        head = said["ok"]
        if "process" in head:
            yield head
            return
        data = talk.frame()[1] if head["size"] else b""
        assert len(data) == head["size"]
        yield head["offset"], head["dropped"], data


def gather(pieces: Iterator[Any], at: int = 0) -> tuple[bytes, Any]:
    got = b""
    for piece in pieces:
        if isinstance(piece, dict):
            assert piece["end"] == at
            return got, piece["process"]
        offset, dropped, data = piece
        assert offset == at + dropped
        at = offset + len(data)
        got += data
    raise AssertionError("no end")


def holder_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class TestStarting:
    def test_it_is_there_at_once_and_its_end_is_told(self, talk: Talk) -> None:
        seen = start(talk, "a", "echo out; echo err >&2; read x; exit 7")
        assert (seen["state"], seen["input_open"]) == ("running", True)
        assert procs.born(seen["pid"])
        assert give(talk, "a", "1", b"\n")["ok"] == {"taken": 1}
        over = wait(talk, "a")
        assert (over["state"], over["exit_code"], over["signal"]) == ("ended", 7, None)
        assert (over["pid"], over["input_open"]) == (None, False)
        assert over["ended"] >= over["started"]
        assert read(talk, "a", "stdout")[1] == b"out\n"
        assert read(talk, "a", "stderr")[1] == b"err\n"
        assert over["output"] == [0, 8]
        assert talk.do("processes")["processes"] == [over]

    def test_what_cannot_be_started(self, agent: Agent, talk: Talk) -> None:
        for name, code, fields in (
            ("a", "file_missing", {"command": ["/no/such"]}),
            ("b", "file_missing", {"command": ["nosuchprogram"]}),
            ("c", "file_forbidden", {"command": ["/etc/passwd"]}),
            ("d", "file_missing", {"command": "true", "cwd": "/nowhere"}),
            ("e", "invalid_request", {"command": "true", "user": "nobody-at-all"}),
            ("f", "invalid_request", {"command": []}),
            ("g", "invalid_request", {"command": "true", "keep": 10}),
            ("h", "invalid_request", {"command": "true", "terminal": True, "rows": 0}),
            ("../x", "invalid_request", {"command": "true"}),
            ("i", "invalid_path", {"command": "true", "cwd": "a"}),
        ):
            assert talk.fail("process_start", id=name, **{"cwd": "/", **fields}) == code
        assert talk.do("processes")["processes"] == []
        assert list((agent.root / "var/lib/runtools/processes").iterdir()) == []

    def test_why_it_was_not_started_is_told_however_long_the_names_are(self, talk: Talk) -> None:
        folders = "/".join(["", *["\u6f22" * 80] * 12])
        said = talk.ask({"do": "process_start", "id": "a", "command": "true", "cwd": folders})
        assert said["error"]["code"] == "file_missing"
        assert said["error"]["message"].startswith("cwd /")
        assert said["error"]["message"].endswith("\u6f22: no such file or directory")
        for name, letter in (("b", "a"), ("c", "\x01"), ("d", "\U0001f600")):
            program = "/".join(["", *[letter * (200 // len(letter.encode()))] * 20])
            said = talk.ask({"do": "process_start", "id": name, "command": [program], "cwd": "/"})
            assert said["error"]["code"] == "file_missing", said
            assert said["error"]["details"]["program"].startswith(f"/{letter}")

    def test_nothing_of_the_agent_is_inherited(self, agent: Agent, talk: Talk) -> None:
        start(
            talk,
            "a",
            "ls -l /proc/self/fd | wc -l; cat /proc/$PPID/comm; trap; ls -l /proc/$PPID/fd",
        )
        wait(talk, "a")
        lines = read(talk, "a")[1].decode().splitlines()
        assert int(lines[0]) <= 5  # total, three, and the listing's own
        assert lines[1] == "runtools-holder"
        assert not any(str(agent.socket) in line for line in lines[2:])

    def test_a_killed_cradle_is_replaced(self, agent: Agent, talk: Talk) -> None:
        start(talk, "a", "exec sleep 300")
        assert agent.process is not None
        children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text()
        for child in map(int, children.split()):
            if "cradle" in Path(f"/proc/{child}/comm").read_text():
                os.kill(child, signal.SIGKILL)
                until(lambda pid=child: procs.born(pid) == 0 or not _runs(pid))
        start(talk, "b", "echo b")
        assert wait(talk, "b")["exit_code"] == 0
        assert talk.do("process", process="a")["state"] == "running"

    def test_two_that_start_the_same_at_once_start_one(self, agent: Agent) -> None:
        seen: list[Any] = []

        def one() -> None:
            seen.append(start(agent.talk(), "a", "echo x >> $HOME/n; exec sleep 300"))

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({each["pid"] for each in seen}) == 1
        file = agent.root / "root/n"
        until(lambda: file.exists() and file.read_text())  # the shell makes it before it writes
        assert file.read_text() == "x\n"


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class TestInput:
    def test_a_repeat_is_taken_once_and_another_request_under_its_id_refused(
        self, talk: Talk
    ) -> None:
        start(talk, "a", "cat")
        assert give(talk, "a", "1", b"one")["ok"] == {"taken": 3}
        assert give(talk, "a", "1", b"one")["ok"] == {"taken": 3}
        assert give(talk, "a", "1", b"two")["error"]["code"] == "idempotency_mismatch"
        act(talk, "a", "close", "2")
        wait(talk, "a")
        assert read(talk, "a")[1] == b"one"
        assert give(talk, "a", "1", b"one")["ok"] == {"taken": 3}
        assert give(talk, "a", "3", b"one")["error"]["code"] == "process_ended"

    def test_it_waits_for_room(self, agent: Agent, talk: Talk) -> None:
        start(talk, "a", f"until [ -e {agent.root}/go ]; do sleep 0.02; done; wc -c")
        for n in range(5):
            assert "ok" in give(talk, "a", str(n), bytes(65_536))
        talk.send({"do": "process_input", "id": "late", "process": "a"})
        talk.send_body(bytes(65_536))
        (agent.root / "go").touch()
        assert talk.answer()["ok"] == {"taken": 6 * 65_536}
        act(talk, "a", "close", "x")
        wait(talk, "a")
        assert int(read(talk, "a")[1]) == 6 * 65_536

    def test_one_that_closes_its_stdin_is_known_to(self, talk: Talk) -> None:
        start(talk, "a", "exec 0<&-; sleep 300")
        until(lambda: not talk.do("process", process="a")["input_open"])
        assert give(talk, "a", "1", b"x")["error"]["code"] == "input_closed"

    def test_too_much_at_once(self, talk: Talk) -> None:
        start(talk, "a", "cat")
        assert give(talk, "a", "1", bytes(65_537))["error"]["code"] == "too_large"
        assert give(talk, "a", "2", b"x")["ok"] == {"taken": 1}


class TestSignals:
    def test_all_that_it_started_is_told(self, agent: Agent, talk: Talk) -> None:
        start(talk, "a", "trap 'exit 9' TERM; sh -c 'echo $$; exec sleep 300' & wait")
        until(lambda: bool(read(talk, "a")[1].strip()))
        child = int(read(talk, "a")[1])
        act(talk, "a", "signal", "1", signal=15)
        assert wait(talk, "a")["exit_code"] == 9
        until(lambda: not _runs(child))

    def test_with_groups_nothing_escapes(self, grouped: Agent) -> None:
        talk = grouped.talk()
        start(talk, "a", "setsid sh -c 'echo $$; exec sleep 300' & wait")
        until(lambda: bool(read(talk, "a")[1].strip()))
        child = int(read(talk, "a")[1])
        holder = holder_of(talk.do("process", process="a")["pid"])
        assert "/execs/holders" in Path(f"/proc/{holder}/cgroup").read_text()
        act(talk, "a", "signal", "1", signal=9)
        assert wait(talk, "a")["signal"] == 9
        until(lambda: not _runs(child))

    def test_foreign_numbers(self, talk: Talk) -> None:
        start(talk, "a", "exec sleep 300")
        for number in (0, 65, -1, "TERM"):
            assert (
                talk.fail("process_signal", process="a", id="x", signal=number) == "invalid_request"
            )
        assert talk.fail("process_signal", process="b", id="x", signal=15) == "not_found"


class TestTerminals:
    def test_its_size_and_its_echo(self, talk: Talk) -> None:
        start(
            talk,
            "a",
            "stty size; tty; echo $TERM; read x; stty size",
            terminal=True,
            rows=10,
            columns=20,
        )
        pieces = follow(talk, "a")
        got = b""
        while b"xterm" not in got:
            got += next(pieces)[2]
        other = Talk(Path(talk.sock.getpeername()))
        assert act(other, "a", "resize", "1", rows=30, columns=40)["rows"] == 30
        assert (
            other.fail("process_resize", process="a", id="2", rows=0, columns=0)
            == "invalid_request"
        )
        give(other, "a", "3", b"hi\n")
        rest, process = gather(pieces, len(got))
        lines = (got + rest).split(b"\r\n")
        assert lines[0] == b"10 20"
        assert lines[1].startswith(b"/dev/pts/")
        assert lines[3:5] == [b"hi", b"30 40"]
        assert process["stdout"] == process["output"]
        assert process["stderr"] == [0, 0]
        other.close()

    def test_end_of_file_in_the_middle_of_a_line(self, talk: Talk) -> None:
        start(talk, "a", "cat; echo over", terminal=True, rows=24, columns=80)
        give(talk, "a", "1", b"half")
        act(talk, "a", "close", "2")
        assert wait(talk, "a")["exit_code"] == 0
        assert read(talk, "a")[1].endswith(b"halfover\r\n")

    def test_the_last_of_a_flood_arrives(self, talk: Talk) -> None:
        start(talk, "a", "seq 1 20000", terminal=True, rows=24, columns=80)
        assert wait(talk, "a")["exit_code"] == 0
        assert read(talk, "a")[1] == b"".join(b"%d\r\n" % n for n in range(1, 20001))

    def test_a_hang_up_ends_a_shell(self, talk: Talk) -> None:
        start(talk, "a", ["bash", "--norc", "-i"], terminal=True, rows=24, columns=80)
        until(lambda: read(talk, "a")[1] != b"")
        ops = count()

        def has_ended() -> bool:
            # bash sleeps through a signal that comes between its prompt and its read.
            act(talk, "a", "signal", str(next(ops)), signal=1)
            seen = talk.do("process_wait", process="a", timeout_ms=200)
            return bool(seen["state"] == "ended")

        until(has_ended)


class TestOutput:
    def test_offsets(self, talk: Talk) -> None:
        start(talk, "a", "printf 0123456789")
        wait(talk, "a")
        assert read(talk, "a", at=4, limit=3)[1] == b"456"
        assert read(talk, "a", at=10) == ({"offset": 10, "dropped": 0, "size": 0}, b"")
        said = talk.ask({"do": "process_output", "process": "a", "start": 11, "limit": 1})
        assert (said["error"]["code"], said["error"]["details"]) == ("invalid_request", {"end": 10})
        assert talk.fail("process_follow", process="a", start=11) == "invalid_request"
        assert talk.fail("process_output", process="a", start=0, limit=0) == "invalid_request"
        assert talk.fail("process_output", process="a", stream="x", limit=1) == "invalid_request"

    def test_streams_apart_and_in_their_order(self, talk: Talk) -> None:
        line = "for i in 1 2 3 4 5; do echo o$i; sleep 0.1; echo e$i >&2; sleep 0.1; done"
        start(talk, "a", line)
        wait(talk, "a")
        assert read(talk, "a")[1] == b"".join(b"o%d\ne%d\n" % (n, n) for n in range(1, 6))
        assert read(talk, "a", "stderr")[1] == b"".join(b"e%d\n" % n for n in range(1, 6))

    def test_a_full_disk_is_a_gap_that_is_stated(self, tmp_path: Path) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        agent = Agent(tmp_path)
        agent.limits = limit
        talk = agent.start().talk()
        # No file may grow beyond 100,000 bytes: what the disk does not take is missing, no more.
        start(talk, "a", "head -c 3000000 /dev/zero; echo over", keep=1 << 24)
        assert wait(talk, "a")["exit_code"] == 0
        seen = talk.do("process", process="a")
        assert seen["output"][1] == 3_000_005
        got, dropped = 0, 0
        for piece in follow(talk, "a"):
            if isinstance(piece, dict):
                assert piece["end"] == 3_000_005
            else:
                dropped += piece[1]
                got += len(piece[2])
        assert got + dropped == 3_000_005
        assert 0 < got < 3_000_005
        assert "Traceback" not in agent.stop()

    def test_many_followers_and_one_that_never_reads(self, agent: Agent, talk: Talk) -> None:
        start(talk, "a", "read go; seq 1 200000")
        lazy = agent.talk()
        lazy.send({"do": "process_follow", "process": "a", "stream": "output", "start": 0})
        whole = b"".join(b"%d\n" % n for n in range(1, 200_001))
        got: list[bytes] = []

        def one() -> None:
            got.append(gather(follow(agent.talk(), "a"))[0])

        threads = [threading.Thread(target=one) for _ in range(20)]
        for thread in threads:
            thread.start()
        give(talk, "a", "1", b"\n")
        assert wait(talk, "a")["exit_code"] == 0
        for thread in threads:
            thread.join()
        assert got == [whole] * 20

    def test_it_counts_as_activity(self, talk: Talk) -> None:
        before = talk.do("activity")["output"]
        start(talk, "a", "read x; echo 123")
        assert talk.do("activity")["output"] == before
        assert talk.do("activity")["running"] == 0
        give(talk, "a", "1", b"\n")
        wait(talk, "a")
        assert talk.do("activity")["output"] == before + 4


class TestCrash:
    def test_no_byte_is_lost_or_doubled(self, agent: Agent) -> None:
        talk = agent.talk()
        line = "i=0; while [ $i -lt 30000 ]; do echo line $i; echo oops $i >&2; i=$((i+1)); done"
        start(talk, "a", line)
        got, at, over = b"", 0, None
        while over is None:
            with contextlib.suppress(ConnectionError, OSError):
                for piece in follow(agent.talk(), "a", at):
                    if isinstance(piece, dict):
                        over = piece["process"]
                        break
                    offset, dropped, data = piece
                    assert (offset, dropped) == (at, 0)
                    got += data
                    at += len(data)
                    if len(got) // 150_000 > (len(got) - len(data)) // 150_000:
                        agent.kill()
            if over is None:
                agent.restart()
        agent.restart()  # it may have been killed as the last piece came, with the end behind it
        talk = agent.talk()
        assert (over["state"], over["exit_code"]) == ("ended", 0)
        assert read(talk, "a")[1] == got
        lines = got.splitlines()
        assert [x for x in lines if x.startswith(b"l")] == [b"line %d" % n for n in range(30_000)]
        assert [x for x in lines if x.startswith(b"o")] == [b"oops %d" % n for n in range(30_000)]

    def test_all_is_found_again(self, agent: Agent) -> None:
        talk = agent.talk()
        first = start(talk, "a", "cat; exit 3")
        start(talk, "b", "exit 4")
        wait(talk, "b")
        assert give(talk, "a", "1", b"one ")["ok"] == {"taken": 4}
        agent.restart()
        talk = agent.talk()
        assert [p["id"] for p in talk.do("processes")["processes"]] == ["a", "b"]
        again = start(talk, "a", "cat; exit 3")
        assert (again["pid"], again["started"]) == (first["pid"], first["started"])
        assert give(talk, "a", "1", b"one ")["ok"] == {"taken": 4}
        assert give(talk, "a", "2", b"two")["ok"] == {"taken": 7}
        act(talk, "a", "close", "3")
        assert wait(talk, "a")["exit_code"] == 3
        assert read(talk, "a")[1] == b"one two"
        assert start(talk, "b", "exit 4")["exit_code"] == 4

    def test_one_that_ends_while_there_is_no_agent(self, agent: Agent) -> None:
        talk = agent.talk()
        pid = start(talk, "a", f"until [ -e {agent.root}/go ]; do sleep 0.01; done; exit 5")["pid"]
        agent.kill()
        (agent.root / "go").touch()
        until(lambda: not _runs(pid))
        agent.socket.unlink(missing_ok=True)
        agent.start()
        assert wait(agent.talk(), "a")["exit_code"] == 5

    def test_a_lost_end_is_said_to_be_lost(self, agent: Agent) -> None:
        talk = agent.talk()
        pid = start(talk, "a", "echo before; exec sleep 300")["pid"]
        pieces = follow(talk, "a")
        assert next(pieces)[2] == b"before\n"
        os.kill(holder_of(pid), signal.SIGKILL)
        over = next(pieces)["process"]
        assert (over["state"], over["exit_code"], over["signal"]) == ("lost", None, None)
        assert over["ended"] is None
        assert give(talk, "a", "1", b"x")["error"]["code"] == "process_ended"
        agent.restart()
        talk = agent.talk()
        assert talk.do("process", process="a")["state"] == "lost"
        assert read(talk, "a")[1] == b"before\n"
        until(lambda: not _runs(pid))  # what nobody holds any more is ended

    def test_a_start_that_was_broken_off_leaves_nothing(self, agent: Agent) -> None:
        folder = agent.root / "var/lib/runtools/processes"
        start(agent.talk(), "a", "true")
        wait(agent.talk(), "a")
        (folder / "0000.new").mkdir()
        (folder / "0001").mkdir()
        half = folder / "0002"
        half.mkdir()
        done = next(folder.glob("*/process.json")).parent
        for name in ("process.json", "lock"):
            (half / name).write_bytes((done / name).read_bytes())
        (half / "live").write_bytes(bytes(72))
        (half / "end").write_bytes(b" " * 8192)
        agent.restart()
        assert [p["id"] for p in agent.talk().do("processes")["processes"]] == ["a"]
        assert list(folder.iterdir()) == [done]


class TestBounds:
    def test_records_that_are_over_go_in_their_order(self, agent: Agent) -> None:
        # A thousand would take minutes: the record of one is copied.
        talk = agent.talk()
        start(talk, "a", "echo a")
        wait(talk, "a")
        folder = agent.root / "var/lib/runtools/processes"
        done = next(folder.iterdir())
        agent.kill()
        for n in range(1004):
            copy = folder / f"{n:024x}"
            copy.mkdir()
            for name in ("lock", "live", "output.0"):
                (copy / name).write_bytes((done / name).read_bytes())
            facts = json.loads((done / "process.json").read_text())
            (copy / "process.json").write_text(json.dumps({**facts, "id": f"n{n}"}))
            end = json.loads((done / "end").read_text())
            (copy / "end").write_text(json.dumps({**end, "at": 1000.0 + n}))
        agent.socket.unlink(missing_ok=True)
        agent.start()
        talk = agent.talk()
        assert start(talk, "b", "exec sleep 300")["state"] == "running"
        said = talk.ask({"do": "process", "process": "n0"})["error"]
        assert (said["code"], "1000" in said["hint"]) == ("not_found", True)
        assert talk.fail("process", process="n5") == "not_found"
        assert talk.do("process", process="n6")["state"] == "ended"
        assert talk.do("process", process="a")["state"] == "ended"
        listed, after = [], 0
        while after is not None:
            page = talk.do("processes", after=after)
            listed += page["processes"]
            after = page["next"]
        assert len(listed) == 1000
        assert len(list(folder.iterdir())) == 1000

    def test_what_is_let_go_of_while_it_is_read_is_not_known(
        self, agent: Agent, talk: Talk
    ) -> None:
        start(talk, "a", "echo a")
        wait(talk, "a")
        shutil.rmtree(next((agent.root / "var/lib/runtools/processes").iterdir()))
        for what in ("process", "process_output", "process_wait", "process_follow"):
            assert talk.fail(what, process="a") == "not_found"

    def test_a_long_command_is_told_in_part(self, talk: Talk) -> None:
        seen = start(talk, "a", "true " + "x" * 100_000)
        assert len(seen["command"]) == 4097
        seen = start(talk, "b", ["printf", "%s"] + ["y" * 1000] * 100)
        assert seen["command"][-1] == "…"
        assert len(json.dumps(seen)) < 6000
        wait(talk, "b")
        assert read(talk, "b")[1] == b"y" * 100_000

    def test_frames_stay_within_their_bounds(self, talk: Talk) -> None:
        start(talk, "a", "head -c 3000000 /dev/zero")
        wait(talk, "a")
        got = 0
        for piece in follow(talk, "a"):
            if not isinstance(piece, dict):
                assert len(piece[2]) <= protocol.CHUNK
                got += len(piece[2])
        assert got == 3_000_000


class TestInputThatWaits:
    def test_a_repeat_of_it_is_taken_once_and_both_are_answered(self, agent: Agent) -> None:
        talk = agent.talk()
        start(talk, "a", f"until [ -e {agent.root}/go ]; do sleep 0.02; done; wc -c")
        for n in range(5):
            assert "ok" in give(talk, "a", str(n), bytes(65_536))
        waiting = [agent.talk() for _ in range(3)]
        for each in waiting:
            each.send({"do": "process_input", "id": "late", "process": "a"})
            each.send_body(bytes(60_000))
        waiting[
            0
        ].close()  # its caller broke off; so have those who repeat it, for all that is known
        other = agent.talk()
        other.send({"do": "process_input", "id": "late", "process": "a"})
        other.send_body(b"something else")
        assert other.answer()["error"]["code"] == "idempotency_mismatch"
        (agent.root / "go").touch()
        taken = {"taken": 5 * 65_536 + 60_000}
        assert [each.answer()["ok"] for each in waiting[1:]] == [taken, taken]
        assert give(talk, "a", "late", bytes(60_000))["ok"] == taken
        act(talk, "a", "close", "x")
        wait(talk, "a")
        assert int(read(talk, "a")[1]) == taken["taken"]

    def test_what_was_refused_may_be_sent_again(self, agent: Agent) -> None:
        talk = agent.talk()
        start(talk, "a", f"until [ -e {agent.root}/go ]; do sleep 0.02; done; wc -c")
        for n in range(5):
            assert "ok" in give(talk, "a", str(n), bytes(65_536))
        both = [agent.talk() for _ in range(2)]
        for each in both:
            each.send({"do": "process_input", "id": "late", "process": "a"})
            each.send_body(bytes(60_000))
        assert [each.answer()["error"]["code"] for each in both] == ["input_full"] * 2
        (agent.root / "go").touch()
        assert give(talk, "a", "late", bytes(60_000))["ok"] == {"taken": 5 * 65_536 + 60_000}


class TestGroups:
    """The path of a group is used again; whoever had it before has no part in it any more."""

    def test_one_that_ended_has_no_part_in_the_next(self, grouped: Agent) -> None:
        talk = grouped.talk()
        for name in "abc":  # spare groups are few: what one leaves another gets
            start(talk, name, "true")
            wait(talk, name)
        start(talk, "lost", "exec sleep 300")
        pid = talk.do("process", process="lost")["pid"]
        os.kill(holder_of(pid), signal.SIGKILL)
        until(lambda: talk.do("process", process="lost")["state"] == "lost")
        until(lambda: not _runs(pid))
        ran = [start(talk, f"on{n}", "exec sleep 300") for n in range(6)]
        groups = _groups_of(grouped)
        assert groups["lost"] in {groups[each["id"]] for each in ran}
        for _ in range(2):
            grouped.restart()
            talk = grouped.talk()
            for each in ran:
                assert talk.do("process", process=each["id"])["state"] == "running"
                assert _runs(each["pid"])
        for each in ran:
            act(talk, each["id"], "signal", "9", signal=9)
            assert wait(talk, each["id"])["signal"] == 9

    def test_one_of_another_boot_is_not_looked_for_in_this_one(self, grouped: Agent) -> None:
        talk = grouped.talk()
        old = start(talk, "old", "exec sleep 300")
        os.kill(holder_of(old["pid"]), signal.SIGKILL)
        until(lambda: talk.do("process", process="old")["state"] == "lost")
        until(lambda: not _runs(old["pid"]))
        new = start(talk, "new", "exec sleep 300")
        grouped.kill()
        # As after a boot: the old one names group and number that a new one has.
        folder = grouped.root / "var/lib/runtools/processes"
        places = {json.loads(f.read_text())["id"]: f.parent for f in folder.glob("*/process.json")}
        facts = json.loads((places["old"] / "process.json").read_text())
        facts |= {"group": _groups_of(grouped)["new"], "boot": "another"}
        (places["old"] / "process.json").write_text(json.dumps(facts))
        (places["old"] / "live").write_bytes((places["new"] / "live").read_bytes())
        grouped.socket.unlink(missing_ok=True)
        grouped.start()
        talk = grouped.talk()
        assert talk.do("process", process="old")["state"] == "lost"
        assert talk.do("process", process="new")["state"] == "running"
        assert _runs(new["pid"])

    def test_a_killed_holder_ends_what_it_held_when_that_is_told(self, grouped: Agent) -> None:
        talk = grouped.talk()
        start(talk, "a", "setsid sh -c 'echo $$; exec sleep 300' & wait")
        until(lambda: bool(read(talk, "a")[1].strip()))
        child, pid = int(read(talk, "a")[1]), talk.do("process", process="a")["pid"]
        os.kill(holder_of(pid), signal.SIGKILL)
        until(lambda: talk.do("process", process="a")["state"] == "lost")
        until(lambda: not _runs(pid))
        until(lambda: not _runs(child))


def _groups_of(agent: Agent) -> dict[str, str]:
    folder = agent.root / "var/lib/runtools/processes"
    known = [json.loads(file.read_text()) for file in folder.glob("*/process.json")]
    return {facts["id"]: facts["group"] for facts in known}


class TestDamage:
    """As after a loss of power, or a hand inside: one record is damaged, all others are there."""

    def test_each_part_of_a_record(self, tmp_path: Path) -> None:
        agent = Agent(tmp_path).start()
        talk = agent.talk()
        damages = ("process.json", "live", "end", "lock", "socket")
        for name in damages:
            for how in ("empty", "gone"):
                start(talk, f"{name}.{how}", "echo 12345; echo oops >&2")
                wait(talk, f"{name}.{how}")
        start(talk, "whole", "exec sleep 300")
        folder = agent.root / "var/lib/runtools/processes"
        places = {json.loads(f.read_text())["id"]: f.parent for f in folder.glob("*/process.json")}
        agent.kill()
        for name in damages:
            (places[f"{name}.gone"] / name).unlink()
            (places[f"{name}.empty"] / name).unlink()
            (places[f"{name}.empty"] / name).touch()
        agent.socket.unlink(missing_ok=True)
        agent.start()
        talk = agent.talk()
        seen = {each["id"]: each for each in talk.do("processes")["processes"]}
        assert len(seen) == 2 * len(damages) + 1
        assert seen["whole"]["state"] == "running"
        for how in ("empty", "gone"):
            assert seen[f"end.{how}"]["state"] == "lost"
            assert {seen[f"{name}.{how}"]["state"] for name in ("live", "lock", "socket")} == {
                "ended"
            }
            unreadable = f"damaged.{places[f'process.json.{how}'].name}"
            assert seen[unreadable]["state"] == "ended"
            for name in (unreadable, f"live.{how}", f"end.{how}", f"lock.{how}"):
                assert seen[name]["output"] == [0, 11]
                assert read(talk, name, "stdout")[1] == b"12345\n"
            # It was started: under its id nothing is started a second time.
            again = {
                "id": f"process.json.{how}",
                "command": "echo 12345; echo oops >&2",
                "cwd": "/",
            }
            error = talk.ask({"do": "process_start", **again})["error"]
            assert (error["code"], error["details"]) == ("outcome_unknown", {"process": unreadable})
        assert "is damaged" in agent.stop()

    def test_one_that_somebody_removed_keeps_no_other_from_being_started(
        self, grouped: Agent
    ) -> None:
        talk = grouped.talk()
        gone = start(talk, "a", "exec sleep 300")
        shutil.rmtree(next((grouped.root / "var/lib/runtools/processes").iterdir()))
        start(talk, "b", "exit 3")
        assert wait(talk, "b")["exit_code"] == 3
        assert talk.fail("process", process="a") == "not_found"
        assert [each["id"] for each in talk.do("processes")["processes"]] == ["b"]
        until(lambda: not _runs(gone["pid"]))

    def test_one_of_a_boot_before_of_which_little_is_left_is_lost_and_not_gone(
        self, agent: Agent
    ) -> None:
        talk = agent.talk()
        start(talk, "a", "true")
        wait(talk, "a")
        place = next((agent.root / "var/lib/runtools/processes").iterdir())
        agent.kill()
        facts = json.loads((place / "process.json").read_text())
        (place / "process.json").write_text(json.dumps(facts | {"boot": "another"}))
        (place / "live").write_bytes(bytes(72))
        (place / "end").write_bytes(bytes(8192))
        agent.socket.unlink(missing_ok=True)
        agent.start()
        seen = agent.talk().do("process", process="a")
        assert (seen["state"], seen["exit_code"]) == ("lost", None)
