from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtools.guest import protocol
from runtools.guest.lasting import MAX_LASTING
from runtools.guest.protocol import HEADER, JSON

from .conftest import SOURCE, Agent, Talk, until


class TestHello:
    def test_says_what_the_agent_can_do(self, talk: Talk) -> None:
        features = talk.hello["ok"]["features"]
        assert talk.hello["ok"]["version"] == 1  # what it offered
        assert features["kill"] == "session"
        assert features["machine"] is False

    def test_a_wrong_token_is_refused(self, agent: Agent) -> None:
        assert agent.talk(token="another").hello["error"]["code"] == "unauthenticated"

    @pytest.mark.parametrize("token", [None, 7, "", ["the token"], "the token "])
    def test_a_strange_token_is_refused(self, agent: Agent, token: Any) -> None:
        assert agent.talk(token=token).hello["error"]["code"] == "unauthenticated"

    def test_foreign_versions_are_refused_with_those_that_are_spoken(self, agent: Agent) -> None:
        error = agent.talk(versions=[99]).hello["error"]
        assert error["code"] == "version_mismatch"
        assert "99" in error["message"]

    def test_nothing_is_done_without_one(self, agent: Agent) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(agent.socket))
            sock.sendall(protocol.frame(JSON, b'{"do":"stats"}'))
            assert b"version_mismatch" in sock.recv(4096)
            assert sock.recv(1) == b""

    @pytest.mark.parametrize(
        "garbage",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            HEADER.pack(protocol.MAX_HELLO + 1, JSON),
            HEADER.pack(2, 77) + b"{}",
            protocol.frame(JSON, b"[1,2]"),
            protocol.frame(JSON, b"{nonsense"),
            protocol.frame(JSON, b"[" * 4000),
        ],
    )
    def test_garbage_ends_the_connection_and_nothing_else(
        self, agent: Agent, garbage: bytes
    ) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(agent.socket))
            sock.sendall(garbage)
            assert _closed(sock)
        assert "ok" in agent.talk().hello


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's")
def test_nobody_but_the_host_is_served(tmp_path: Path) -> None:
    """A machine's own processes could else take all connections there are, from any address it has."""
    token = tmp_path / "token"
    token.write_text("secret")
    argv = ["unshare", "--net", "bash", "-ec", _MACHINE, sys.executable, _CALLS, str(token)]
    done = subprocess.run(
        argv,
        capture_output=True,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr
    served = dict(line.split() for line in done.stdout.splitlines())
    assert served.pop(f"{protocol.HOST}>10.0.2.15") == "True"
    assert len(served) == 10
    assert set(served.values()) == {"False"}, served


# All its addresses on the loopback device, the host's among them: nothing leaves this namespace.
_MACHINE = """
ip link set lo up
for address in 10.0.2.15 192.0.2.7 10.0.2.2; do ip addr add $address/32 dev lo; done
exec "$0" -S -c "$1" "$2"
"""
_CALLS = r"""
import socket, sys, threading, types
from runtools.guest.server import Server, Token
listener = socket.create_server(("0.0.0.0", 0))
port = listener.getsockname()[1]
server = Server(listener, Token(sys.argv[1]), types.SimpleNamespace())
threading.Thread(target=server.run, daemon=True).start()
calls = [
    (source, called)
    for source in ("127.0.0.1", "127.0.0.2", "127.9.9.9", "10.0.2.15", "192.0.2.7")
    for called in ("127.0.0.1", "10.0.2.15")
]
for source, called in [("10.0.2.2", "10.0.2.15"), *calls]:
    with socket.create_connection((called, port), 60, (source, 0)) as sock:
        try:
            sock.sendall(b"\0\0\0\2\1{}")  # a hello that is refused, but answered
            served = sock.recv(1) != b""
        except ConnectionError:
            served = False
        print(f"{source}>{called}", served)
"""


class TestRequests:
    def test_one_after_another_on_one_connection(self, talk: Talk) -> None:
        for _ in range(20):
            assert talk.do("ping") == {}

    def test_an_unknown_operation_is_refused_and_the_connection_goes_on(self, talk: Talk) -> None:
        assert talk.fail("fly") == "invalid_request"
        assert talk.do("ping") == {}

    def test_several_in_one_piece(self, talk: Talk) -> None:
        talk.sock.sendall(protocol.frame(JSON, b'{"do":"ping"}') * 3)
        assert [talk.answer() for _ in range(3)] == [{"ok": {}}] * 3

    def test_a_byte_at_a_time(self, talk: Talk) -> None:
        for byte in protocol.frame(JSON, b'{"do":"ping"}'):
            talk.sock.sendall(bytes([byte]))
        assert talk.answer() == {"ok": {}}

    def test_many_connections_at_once(self, agent: Agent) -> None:
        talks = [agent.talk() for _ in range(100)]
        assert all(talk.do("ping") == {} for talk in talks)

    def test_an_act_without_an_id_is_refused(self, talk: Talk) -> None:
        assert talk.fail("mkdir", path="/x") == "invalid_request"
        assert talk.fail("mkdir", id="no spaces", path="/x") == "invalid_request"


class TestLasting:
    """What takes its thread for long takes some of them, and not those of others."""

    @pytest.fixture
    def full(self, agent: Agent) -> Iterator[list[Talk]]:
        """An agent in which as many commands read from a pipe to which nobody writes, as may."""
        pipe = agent.root / "root/pipe"
        os.mkfifo(pipe)
        writer = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        held = [agent.talk() for _ in range(MAX_LASTING)]
        for n, talk in enumerate(held):
            talk.send({"do": "exec", "id": f"l{n}", "command": ["cat", str(pipe)], "cwd": "/"})
        look = agent.talk()
        until(lambda: look.do("activity")["running"] == MAX_LASTING)
        yield held
        pipe.unlink()  # whoever has not opened it yet finds none
        os.close(writer)

    @pytest.mark.usefixtures("full")
    def test_the_others_are_answered(self, agent: Agent) -> None:
        """By new connections: a host that has none left must be greeted, too."""
        for do in ("ping", "stats", "processes"):
            assert "error" not in agent.talk().ask({"do": do})
        started = agent.talk().do("process_start", id="p", command="sleep 600", cwd="/")
        assert started["state"] == "running"
        ended = agent.talk().do("process_signal", process="p", id="k", signal=9)
        assert ended["id"] == "p"

    def test_one_more_is_refused_by_name_and_the_connection_goes_on(
        self, agent: Agent, full: list[Talk]
    ) -> None:
        talk, line = agent.talk(), 'echo x >> "$HOME/log"; cat "$HOME/log"'
        for stdin in (b"", b"more than nothing"):
            said = talk.exec("x", line, stdin=stdin)
            assert said["code"] == "unavailable"
            assert str(MAX_LASTING) in said["message"]
        for do in ("process_wait", "process_follow", "watch", "read", "write", "remove"):
            assert talk.fail(do, id="y", path="/root", process="p") == "unavailable"
        # One that ends makes room, and what was refused was not begun.
        assert talk.do("exec_signal", id="k", exec="l0", signal=9) == {}
        assert full[0].answer()["ok"]["signal"] == 9
        until(lambda: "exit_code" in talk.exec("x", line))
        assert talk.exec("x", line)["out"] == b"x\n"


class TestRepeats:
    def test_are_answered_and_not_done_again(self, agent: Agent, talk: Talk) -> None:
        first = talk.exec("p1", 'echo once >> "$HOME/log"; echo said')
        again = agent.talk().exec("p1", 'echo once >> "$HOME/log"; echo said')
        assert first == again
        assert (agent.root / "root/log").read_text() == "once\n"

    def test_of_a_failure_fail_alike(self, agent: Agent, talk: Talk) -> None:
        assert talk.fail("remove", id="r1", path="/later") == "file_missing"
        (agent.root / "later").touch()
        assert talk.fail("remove", id="r1", path="/later") == "file_missing"
        assert (agent.root / "later").exists()

    def test_with_another_request_are_refused(self, talk: Talk) -> None:
        talk.do("mkdir", id="m1", path="/a")
        assert talk.fail("mkdir", id="m1", path="/b") == "idempotency_mismatch"

    def test_attach_to_what_is_under_way(self, agent: Agent, talk: Talk) -> None:
        go = agent.root / "root/go"
        line = 'echo x >> "$HOME/runs"; until [ -e "$HOME/go" ]; do sleep 0.01; done; echo done'
        results: list[Any] = []
        talks = [talk, agent.talk()]
        threads = [
            threading.Thread(target=lambda t=t: results.append(t.exec("p2", line))) for t in talks
        ]
        for thread in threads:
            thread.start()
        until((agent.root / "root/runs").exists)
        go.touch()
        for thread in threads:
            thread.join(20)
        assert results[0] == results[1]
        assert results[0]["out"] == b"done\n"
        assert (agent.root / "root/runs").read_text() == "x\n"


class TestQuiesce:
    def test_leaves_no_connection(self, agent: Agent, talk: Talk) -> None:
        other = agent.talk()
        assert talk.do("quiesce") == {}
        with pytest.raises((ConnectionError, OSError)):
            other.do("ping")
        assert talk.file.read(1) == b""
        assert agent.talk().do("ping") == {}


def _closed(sock: socket.socket) -> bool:
    try:
        while sock.recv(4096):
            pass
    except ConnectionError:
        return True
    return True
