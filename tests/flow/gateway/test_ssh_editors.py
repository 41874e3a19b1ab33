"""What editors need that work in a sandbox by SSH, done as they do it; and agents, where allowed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtools.testing.api_world import holds
from runtools.testing.ssh_clients import background, open_port, shut
from runtools.testing.ssh_world import SANDBOX, SshWorld, free_port, ssh_world, sshd_program

pytestmark = [
    pytest.mark.skipif(
        sshd_program() is None or os.geteuid() != 0, reason="needs openssh-server, and root for it"
    ),
    pytest.mark.asyncio(loop_scope="module"),
]

# What an editor starts inside: a server that says where it listens, lives as long as the connection's
# stdin, and answers messages of JSON, each in a line.
SERVER = """
import json, os, socketserver, sys, threading

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            asked = json.loads(line)
            said = {"id": asked["id"], "text": open(asked["path"]).read()}
            self.wfile.write(json.dumps(said).encode() + b"\\n")

class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("listening on", server.server_address[1], "as", os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SshWorld]:
    """A gateway for all tests here."""
    async with ssh_world(tmp_path_factory.mktemp("ssh")) as made:
        yield made


async def _socks(proxy: int, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a port of the sandbox's loopback, through ``-D``."""
    reader, writer = await open_port(proxy)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
    assert (await reader.readexactly(10))[1] == 0
    return reader, writer


class TestRemoteAttach:
    async def test_as_editors_do_it(self, world: SshWorld, tmp_path: Path) -> None:
        """A shell without a terminal is fed a script over stdin, which puts a server there and stays; the
        editor talks to it through ``-D`` by several connections, and copies files meanwhile.
        """
        proxy, text = free_port(), tmp_path / "file.txt"
        text.write_text("what is edited\n")
        async with background(world.ssh("-T", "-D", f"127.0.0.1:{proxy}", "--", "sh")) as editor:
            assert editor.stdin is not None
            assert editor.stdout is not None
            script = tmp_path / "server.py"
            editor.stdin.write(
                f"cat > {script} <<'END'\n{SERVER}END\nexec {sys.executable} {script}\n".encode()
            )
            await editor.stdin.drain()
            async with asyncio.timeout(30):
                words = (await editor.stdout.readline()).split()
            assert words[:2] == [b"listening", b"on"]
            port, pid = int(words[2]), int(words[4])
            talks = [await _socks(proxy, port) for _ in range(4)]
            for turn in range(3):
                for number, (reader, writer) in enumerate(talks):
                    asked = {"id": 10 * turn + number, "path": str(text)}
                    writer.write(json.dumps(asked).encode() + b"\n")
                    said = json.loads(await reader.readline())
                    assert said == {"id": asked["id"], "text": text.read_text()}
            await self._saves(world, text)
            reader, writer = talks[0]
            writer.write(json.dumps({"id": 1, "path": str(text)}).encode() + b"\n")
            assert json.loads(await reader.readline())["text"] == "saved by sftp\n"
            for _, writer in talks:
                await shut(writer)
            editor.stdin.close()  # the editor is closed, and its server goes
            async with asyncio.timeout(30):
                await editor.wait()
        await holds(lambda: not Path(f"/proc/{pid}").exists())

    async def _saves(self, world: SshWorld, file: Path) -> None:
        mine = file.with_suffix(".mine")
        mine.write_text("saved by sftp\n")
        place = ["-q", "-b", "-", "-F", "none", "-P", str(world.port), *world.options()]
        batch = f"put {mine} {file}.new\nrename {file}.new {file}\n"
        argv = ["sftp", *place, f"{SANDBOX}@127.0.0.1"]
        code, _, err = await world.run(argv, stdin=batch.encode())
        assert code == 0, err

    async def test_over_one_connection_that_is_shared(
        self, world: SshWorld, tmp_path: Path
    ) -> None:
        """ControlMaster: forwards are added and taken back while it is open, and sessions come and go."""
        mux = tmp_path / "mux"
        shared = ["ssh", "-S", str(mux), *world.ssh("-o", f"ControlPath={mux}")[1:]]
        async with background(["ssh", "-M", "-S", str(mux), *world.ssh("-N")[1:]]):
            await holds(mux.exists)
            for _ in range(3):
                port, back = free_port(), free_port()
                for forward in (
                    ["-L", f"{port}:127.0.0.1:{world.sshd.port}"],
                    ["-R", f"127.0.0.1:{back}:127.0.0.1:{world.sshd.port}"],
                ):
                    code, _, err = await world.run([*shared, "-O", "forward", *forward])
                    assert code == 0, err
                for place in (port, back):
                    reader, writer = await open_port(place)
                    assert (await reader.readline()).startswith(b"SSH-2.0-OpenSSH")
                    await shut(writer)
                code, _, err = await world.run(
                    [*shared, "-O", "cancel", "-R", f"127.0.0.1:{back}:127.0.0.1:{world.sshd.port}"]
                )
                assert code == 0, err
                await holds(lambda back=back: _is_closed(back))


async def _is_closed(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    except ConnectionError:
        return False
    await shut(writer)
    return False


class TestAgents:
    async def test_one_is_handed_on_where_it_is_allowed_and_asked_for(
        self, world: SshWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(world.house, "agents", True)
        path = tmp_path / "agent"
        async with background(["ssh-agent", "-D", "-a", str(path)]):
            await holds(path.exists)
            code, out, err = await world.run(_with_agent(world, path, "-A"))
            assert (code, b"The agent has no identities" in out) == (1, True), err
            code, out, _ = await world.run(_with_agent(world, path, "-a"))
            assert (code, out) == (2, b"")

    async def test_a_sandbox_that_takes_it_anyway_gets_none(
        self, world: SshWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its sshd believes that it may: whoever rules the sandbox can make it so."""
        certified = type(world.house.keys).certified
        monkeypatch.setattr(
            type(world.house.keys),
            "certified",
            lambda keys, who, *, agents: certified(keys, who, agents=True),
        )
        path = tmp_path / "agent"
        async with background(["ssh-agent", "-D", "-a", str(path)]):
            await holds(path.exists)
            argv = _with_agent(world, path, "-A")
            argv[-1] += "; echo socket=$SSH_AUTH_SOCK"
            code, out, _ = await world.run(argv)
            assert code == 0
            assert out.startswith(b"socket=/")  # ... and nobody behind it


def _with_agent(world: SshWorld, path: Path, how: str) -> list[str]:
    return ["env", f"SSH_AUTH_SOCK={path}", *world.ssh(how, "--", "ssh-add -l")]
