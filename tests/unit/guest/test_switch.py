"""Streams to ports, asked of a real agent by hand."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.guest import switch
from runtools.guest.problems import Problem
from runtools.testing import port_server

from .conftest import Agent, Talk, until
from .test_renew import order

_ONE_STREAM = """
import socket, sys, threading
from runtools.guest.switch import Switch
streams = Switch(1)
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    streams.take(listener.accept()[0], streams.connect(int(sys.argv[1])), b"")
threading.Event().wait()
"""


@contextlib.contextmanager
def serving(kind: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(
                        target=port_server.serve, args=(kind, sock), daemon=True
                    ).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def stream(agent: Agent, port: int) -> Talk:
    talk = agent.talk()
    talk.do("connect", port=port)
    return talk


def test_bytes_may_follow_the_request_at_once(agent: Agent) -> None:
    with serving("last") as port:
        talk = agent.talk()
        talk.send({"do": "connect", "port": port})
        talk.sock.sendall(b"early ")
        assert talk.answer() == {"ok": {}}
        talk.sock.sendall(b"and late")
        talk.sock.shutdown(socket.SHUT_WR)
        assert talk.file.read() == b"early and late"


def test_a_refusal_says_what_listens_and_ends_the_connection(agent: Agent) -> None:
    with serving("echo") as port:
        talk = agent.talk()
        said = talk.ask({"do": "connect", "port": 9})["error"]
        assert said["code"] == "port_closed"
        assert port in said["details"]["ports"]
        assert talk.file.read(1) == b""


@pytest.mark.parametrize("port", [0, 65536, -1, "80", None, True])
def test_what_is_no_port_is_refused(agent: Agent, port: object) -> None:
    assert agent.talk().fail("connect", port=port) == "invalid_request"


def test_the_agents_own_port_is_none() -> None:
    with pytest.raises(Problem, match="cannot be reached"):
        switch.Switch(7709).connect(7709)


def test_a_peer_that_vanishes_takes_its_stream_with_it(agent: Agent) -> None:
    with serving("flood") as port:
        talk = stream(agent, port)
        talk.file.read(1 << 20)
        talk.close()
        again = stream(agent, port)
        assert len(again.file.read(1 << 20)) == 1 << 20
        again.close()
    assert agent.talk().do("ping") == {}


def test_a_stream_is_not_told_of_what_befell_the_one_whose_number_it_got() -> None:
    """A stream that breaks is told of at both its ends, and its numbers are given out again at once."""
    streams = switch.Switch(1)
    missing = []

    def churn(port: int) -> None:
        for _ in range(300):
            ours, theirs = socket.socketpair()
            streams.take(theirs, streams.connect(port), b"")
            with ours, ours.makefile("rb") as file:
                missing.append((1 << 18) - len(file.read(1 << 18)))

    with serving("flood") as port:
        threads = [threading.Thread(target=churn, args=(port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert missing == [0] * 1200


def test_slow_streams_do_not_hold_up_others(agent: Agent) -> None:
    with serving("flood") as flood, serving("echo") as echo:
        slow = [stream(agent, flood) for _ in range(5)]
        quick = stream(agent, echo)
        for n in range(50):
            quick.sock.sendall(b"%3d" % n)
            assert quick.file.read(3) == b"%3d" % n
        for talk in slow:
            assert talk.file.read(1 << 20) == b"x" * (1 << 20)


@contextlib.contextmanager
def _switching(port: int) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """A process that has nothing but one stream to a port, over TCP as in a machine, and our end of it."""
    argv = [sys.executable, "-c", _ONE_STREAM, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            outer = int(process.stdout.readline())
            with socket.create_connection(("127.0.0.1", outer), timeout=30) as ours:
                yield process, ours
        finally:
            process.kill()


def test_one_that_is_killed_breaks_off_what_was_under_way() -> None:
    """An end would make the part that came the whole."""
    with serving("echo") as port, _switching(port) as (process, ours):
        ours.sendall(b"a part")
        assert ours.recv(6) == b"a part"
        process.kill()
        with pytest.raises(ConnectionResetError):
            ours.recv(1)


def test_what_a_server_ends_comes_whole_and_ends() -> None:
    said = b"x" * (4 << 20)
    with serving("last") as port, _switching(port) as (_, ours):
        threading.Thread(
            target=lambda: (ours.sendall(said), ours.shutdown(socket.SHUT_WR)), daemon=True
        ).start()
        with ours.makefile("rb") as file:
            assert file.read() == said


def test_streams_end_when_the_machine_becomes_another(agent: Agent) -> None:
    with serving("echo") as port:
        talk = stream(agent, port)
        talk.sock.sendall(b"x")
        assert talk.file.read(1) == b"x"
        agent.talk().do("renew", **order())
        with contextlib.suppress(ConnectionError):
            assert talk.file.read(1) == b""


@pytest.mark.parametrize("full", [False, True], ids=["at rest", "while nobody reads"])
def test_what_is_broken_off_has_not_come_to_its_end(full: bool) -> None:
    """For who asked, and for the server, which would take a part of what it is sent for the whole."""
    streams = switch.Switch(1)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    asked, server = listeners
    with asked, server, socket.create_connection(asked.getsockname()) as ours:
        streams.take(asked.accept()[0], streams.connect(server.getsockname()[1]), b"a part")
        theirs, _ = server.accept()
        with theirs:
            assert theirs.recv(6) == b"a part"
            stream = next(iter(streams._streams.values()))
            for sock, flow in ((ours, stream.inward), (theirs, stream.outward)):
                sock.setblocking(False)
                while full and not flow.held:
                    with contextlib.suppress(BlockingIOError):
                        sock.send(bytes(1 << 16))
            streams.drop()
            for sock in (ours, theirs):
                sock.settimeout(30)
                with pytest.raises(ConnectionResetError), sock.makefile("rb") as file:
                    file.read()


def test_an_agent_at_rest_takes_no_processor(agent: Agent) -> None:
    """Also where one side has ended for good and the other has not."""
    with serving("sink") as port:
        talk = stream(agent, port)
        talk.sock.shutdown(socket.SHUT_WR)
        assert agent.process is not None
        pid = agent.process.pid

        def ticks() -> int:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        before = [ticks()]

        def is_still() -> bool:
            threading.Event().wait(0.5)
            before.append(ticks())
            return before[-1] - before[-2] <= 1

        until(is_still)
