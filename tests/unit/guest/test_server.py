from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from runtools.guest import protocol
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


def test_processes_of_the_machine_itself_are_turned_away(tmp_path: Path) -> None:
    """By whichever of their addresses they come: else any of them could take all connections there are."""
    token = tmp_path / "token"
    token.write_text("secret")
    argv = [sys.executable, "-S", "-c", _ON_ALL_ADDRESSES, str(token)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={"PYTHONPATH": str(SOURCE)}) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            for own in ("127.0.0.1", "127.0.0.2", "127.9.9.9"):
                with socket.create_connection(("127.0.0.1", port), 30, (own, 0)) as sock:
                    sock.settimeout(5)  # a hello is waited for twice as long
                    assert sock.recv(1) == b"", own
        finally:
            server.kill()


_ON_ALL_ADDRESSES = """
import socket, sys, types
from runtools.guest.server import Server, Token
with socket.create_server(("0.0.0.0", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    Server(listener, Token(sys.argv[1]), types.SimpleNamespace()).run()
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
