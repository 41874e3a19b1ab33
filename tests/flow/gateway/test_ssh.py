"""The SSH gateway, with OpenSSH's own programs on both sides of it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio

from runtools.errors import Conflict, SandboxStopped, Unavailable
from runtools.platform.gateway.ssh import door, server
from runtools.platform.gateway.ssh.guesses import Guesses
from runtools.testing.api_world import holds
from runtools.testing.ssh_clients import background, ends, open_port, says, shut
from runtools.testing.ssh_world import (
    OTHER,
    PASSWORD,
    SANDBOX,
    SshWorld,
    free_port,
    ssh_world,
    sshd_program,
)

pytestmark = [
    pytest.mark.skipif(
        sshd_program() is None or os.geteuid() != 0, reason="needs openssh-server, and root for it"
    ),
    pytest.mark.asyncio(loop_scope="module"),
]


CLIENT = """
import asyncio, sys
import asyncssh
from asyncssh import connection

class Name(str):
    def encode(self, *_, **__):
        return bytes.fromhex(self)

connection.saslprep = lambda name: name

async def main(port, key, *names):
    for name in names:
        try:
            await asyncssh.connect("127.0.0.1", int(port), username=Name(name), client_keys=[key],
                known_hosts=None, config=None, agent_path=None)
        except Exception as exc:
            print(type(exc).__name__)

asyncio.run(main(*sys.argv[1:]))
"""
# What libraries tell and OpenSSH's client does not: which signal ended a command, and one that is sent.
SIGNALS = """
import asyncio, sys
import asyncssh

async def main(port, name, key):
    async with asyncssh.connect("127.0.0.1", int(port), username=name, client_keys=[key],
            known_hosts=None, config=None, agent_path=None) as there:
        for how in ("TERM", "KILL"):
            done = await there.run(f"kill -{how} $$")
            print("ended by", done.exit_signal[0])
        async with there.create_process("cat") as process:
            process.send_signal("TERM")
            process.stdin.write("goes on\\n")
            print(await process.stdout.readline(), end="")

asyncio.run(main(*sys.argv[1:]))
"""
ODD_NAMES = (
    b"root",
    b"x" * 900,
    b"x" * 5000,
    b"sandbox-",
    b"sandbox-0000000000A1",
    b"sandbox-0000000000a1 ",
    b"sandbox-0000000000a1\n",
    b"../../etc",
    b"'; drop table sandboxes; --",
    "\u202eevil".encode(),
    b"\x7f\x1b[2J",
    b"\xff\xfe",
    b"sandbox-0000000000a1\0",
    b"",
    bytes(range(1, 32)),
    bytes(range(128, 256)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SshWorld]:
    """A gateway that no test breaks."""
    async with ssh_world(tmp_path_factory.mktemp("ssh")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path: Path) -> AsyncIterator[SshWorld]:
    """A gateway of the test's own."""
    async with ssh_world(tmp_path) as made:
        yield made


async def empty(world: SshWorld) -> None:
    """Wait until nobody is in."""
    async with asyncio.timeout(60):
        while world.house.inside or len(world.house.places):
            await asyncio.sleep(0.02)


class TestCommands:
    async def test_output_stderr_and_exit_status(self, shared: SshWorld) -> None:
        code, out, err = await shared.run(shared.ssh("--", "echo out; echo err >&2; exit 7"))
        assert (code, out, err) == (7, b"out\n", "err\n")

    async def test_input_goes_through_whole_and_ends(self, shared: SshWorld) -> None:
        data = os.urandom(3_000_000)
        code, out, _ = await shared.run(shared.ssh("--", "cat; exit 3"), stdin=data)
        assert (code, out == data) == (3, True)

    async def test_new_keys_in_the_middle_of_it(self, shared: SshWorld) -> None:
        data = os.urandom(6_000_000)
        argv = shared.ssh("-v", "-o", "RekeyLimit=500K", "--", "cat")
        code, out, err = await shared.run(argv, stdin=data)
        assert (code, out == data) == (0, True)
        assert err.count("rekey") > 5

    async def test_a_command_of_any_bytes(self, shared: SshWorld) -> None:
        odd = b"printf '%s' '" + bytes(b for b in range(128, 256)) + b"'"
        argv = [os.fsencode(word) for word in shared.ssh("--")] + [odd]
        code, out, _ = await shared.run(argv)  # type: ignore[arg-type]
        assert (code, out) == (0, bytes(range(128, 256)))

    async def test_one_that_a_signal_ends(self, shared: SshWorld) -> None:
        code, _, _ = await shared.run(shared.ssh("--", "kill -TERM $$"))
        assert code == 255

    async def test_signals_as_libraries_tell_and_send_them(self, shared: SshWorld) -> None:
        """OpenSSH's server sends none for who is root, through the gateway as directly."""
        for port, name in ((shared.port, SANDBOX), (shared.sshd.port, "root")):
            public = asyncssh.read_private_key(shared.key).export_public_key()
            (shared.sshd.folder / "authorized").write_bytes(public)
            argv = [sys.executable, "-c", SIGNALS, str(port), name, str(shared.key)]
            code, out, err = await shared.run(argv)
            assert (code, out) == (0, b"ended by TERM\nended by KILL\ngoes on\n"), (name, err)

    async def test_environment_where_the_server_takes_it(self, shared: SshWorld) -> None:
        argv = shared.ssh("-o", "SetEnv=COLOR=blau", "--", "echo $COLOR")
        assert (await shared.run(argv))[1] == b"blau\n"

    async def test_a_dozen_at_once_over_as_many_connections(self, shared: SshWorld) -> None:
        runs = [shared.run(shared.ssh("--", f"echo {n}; exit {n}")) for n in range(12)]
        assert [(code, out) for code, out, _ in await asyncio.gather(*runs)] == [
            (n, f"{n}\n".encode()) for n in range(12)
        ]

    async def test_many_over_one_connection(self, shared: SshWorld) -> None:
        path = shared.folder / "mux"
        mux = ["-o", f"ControlPath={path}"]
        async with background(["ssh", "-M", "-S", str(path), *shared.ssh("-N")[1:]]):
            async with asyncio.timeout(20):
                while not path.exists():
                    await asyncio.sleep(0.02)
            argv = ["ssh", *mux, *shared.ssh("--", "sleep 0.2; echo $PPID")[1:]]
            outs = await asyncio.gather(*(shared.run(argv) for _ in range(8)))
            assert len({out for code, out, _ in outs if code == 0}) == 1, outs
            before = len(shared.doorway.logins)
            assert (await shared.run(argv))[0] == 0
            assert len(shared.doorway.logins) == before


class TestTerminal:
    async def test_it_has_the_clients_size_and_follows_it(self, shared: SshWorld) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        script = "trap 'stty size' WINCH; stty size; echo ready; while true; do read -t 0.1 x; done"
        argv = shared.ssh("-tt", "--", script)
        process = _at_terminal(argv, slave)
        os.close(slave)
        try:
            seen = await asyncio.to_thread(_read_until, master, b"ready")
            assert b"33 99" in seen
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
            process.send_signal(28)  # SIGWINCH
            assert b"40 120" in await asyncio.to_thread(_read_until, master, b"40 120")
            # Again and again: bash goes on after one that comes while a command of its ends by itself.
            async with asyncio.timeout(20):
                while process.poll() is None:
                    os.write(master, b"\x03")
                    await asyncio.sleep(0.2)
        finally:
            process.kill()
            process.wait()
            os.close(master)

    async def test_a_shell(self, shared: SshWorld) -> None:
        typed = b"echo $((6*7)); exit 5\n"
        code, out, _ = await shared.run(shared.ssh("-tt"), stdin=typed)
        assert code == 5
        assert b"42" in out


def _at_terminal(argv: list[str], slave: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)


def _read_until(fd: int, word: bytes) -> bytes:
    seen = b""
    while word not in seen and select.select([fd], [], [], 10)[0]:
        seen += os.read(fd, 4096)
    return seen


class TestFiles:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        (tmp_path / "big").write_bytes(os.urandom(5_000_000))
        return tmp_path

    @pytest.mark.parametrize("how", [["-s"], ["-O"]], ids=["sftp", "old protocol"])
    async def test_scp_both_ways(self, shared: SshWorld, data: Path, how: list[str]) -> None:
        place = [*how, "-q", "-F", "none", "-P", str(shared.port), *shared.options()]
        there = f"{SANDBOX}@127.0.0.1:{data}/there"
        for pair in ([str(data / "big"), there], [there, str(data / "back")]):
            code, _, err = await shared.run(["scp", *place, *pair])
            assert (code, err) == (0, "")
        assert _digest(data / "back") == _digest(data / "big")

    async def test_sftp(self, shared: SshWorld, data: Path) -> None:
        argv = ["sftp", "-q", "-b", "-", "-F", "none", "-P", str(shared.port), *shared.options()]
        batch = f"put {data}/big {data}/there\nget {data}/there {data}/back\nls {data}\n"
        code, out, err = await shared.run([*argv, f"{SANDBOX}@127.0.0.1"], stdin=batch.encode())
        assert code == 0, err
        assert b"there" in out
        assert _digest(data / "back") == _digest(data / "big")

    @pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
    async def test_rsync(self, shared: SshWorld, data: Path) -> None:
        shell = " ".join(["ssh", "-F", "none", "-p", str(shared.port), *shared.options()])
        argv = ["rsync", "-a", "-e", shell, f"{data}/big", f"{SANDBOX}@127.0.0.1:{data}/synced/"]
        code, _, err = await shared.run(argv)
        assert code == 0, err
        assert _digest(data / "synced" / "big") == _digest(data / "big")

    async def test_git_clone(self, shared: SshWorld, data: Path) -> None:
        _repository(data / "repo")
        shell = " ".join(["ssh", "-F", "none", "-p", str(shared.port), *shared.options()])
        url = f"ssh://{SANDBOX}@127.0.0.1{data}/repo"
        argv = ["env", f"GIT_SSH_COMMAND={shell}", "git", "clone", "-q", url, f"{data}/clone"]
        code, _, err = await shared.run(argv)
        assert code == 0, err
        assert (data / "clone" / ".git").is_dir()


def _repository(folder: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q", str(folder)], check=True)
    words = ["-C", str(folder), "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run([*git, *words], check=True)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class TestForwarding:
    @pytest_asyncio.fixture(loop_scope="module")
    async def echo(self) -> AsyncIterator[int]:
        """A server that gives back what it is sent, to the end of it."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
            writer.write(b"END")
            await shut(writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _talks(self, port: int) -> None:
        reader, writer = await open_port(port)
        data = os.urandom(2_000_000)
        sending = asyncio.create_task(_send(writer, data))
        async with asyncio.timeout(20):
            got = await reader.read(-1)
        await sending
        await shut(writer)
        assert got == data + b"END"

    async def test_local(self, shared: SshWorld, echo: int) -> None:
        port = free_port()
        async with background(shared.ssh("-N", "-L", f"{port}:127.0.0.1:{echo}")):
            await self._talks(port)
            await asyncio.gather(*(self._talks(port) for _ in range(5)))

    async def test_local_to_a_socket(self, shared: SshWorld, tmp_path: Path) -> None:
        port, path = free_port(), tmp_path / "sock"
        server = await asyncio.start_unix_server(_greet, path)
        async with server, background(shared.ssh("-N", "-L", f"{port}:{path}")):
            reader, writer = await open_port(port)
            assert await reader.read(-1) == b"hello"
            await shut(writer)

    async def test_remote(self, shared: SshWorld, echo: int) -> None:
        port = free_port()
        argv = shared.ssh("-R", f"127.0.0.1:{port}:127.0.0.1:{echo}", "--", "echo in; sleep 60")
        async with background(argv) as process:
            await says(process, b"in")
            await self._talks(port)
        async with asyncio.timeout(60):  # with the client its port is gone
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    return
                except ConnectionResetError:
                    continue
                await shut(writer)
                await asyncio.sleep(0.02)

    async def test_remote_from_a_socket(self, shared: SshWorld, echo: int, tmp_path: Path) -> None:
        path = tmp_path / "back"
        async with background(shared.ssh("-N", "-R", f"{path}:127.0.0.1:{echo}")):
            await holds(path.exists)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"through")
            async with asyncio.timeout(20):
                assert await reader.readexactly(7) == b"through"
            await shut(writer)

    async def test_remote_with_a_port_that_is_chosen_there(
        self, shared: SshWorld, echo: int
    ) -> None:
        async with background(shared.ssh("-N", "-R", f"0:127.0.0.1:{echo}")) as process:
            assert process.stderr is not None
            async with asyncio.timeout(20):
                line = await process.stderr.readline()
            assert b"Allocated port" in line
            await self._talks(int(line.split()[2]))

    async def test_dynamic(self, shared: SshWorld, echo: int) -> None:
        port = free_port()
        async with background(shared.ssh("-N", "-D", f"127.0.0.1:{port}")):
            reader, writer = await open_port(port)
            writer.write(b"\x05\x01\x00")
            assert await reader.readexactly(2) == b"\x05\x00"
            writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + echo.to_bytes(2, "big"))
            assert (await reader.readexactly(10))[1] == 0
            writer.write(b"through")
            assert await reader.readexactly(7) == b"through"
            await shut(writer)

    async def test_where_nobody_listens(self, shared: SshWorld) -> None:
        port, nobody = free_port(), free_port()
        async with background(shared.ssh("-N", "-L", f"{port}:127.0.0.1:{nobody}")) as process:
            reader, writer = await open_port(port)
            assert await reader.read(-1) == b""
            await shut(writer)
            assert process.stderr is not None
            assert b"open failed: connect failed" in await process.stderr.readline()

    async def test_a_slow_reader_holds_the_sender_up(self, shared: SshWorld) -> None:
        """What is not taken is not piled up in the gateway."""
        async with background(shared.ssh("--", "yes")) as process:
            assert process.stdout is not None
            await process.stdout.readexactly(1000)
            sizes = []
            for _ in range(40):
                await asyncio.sleep(0.02)
                sizes.append(_waiting(shared))
            assert max(sizes) < 8 * 1024 * 1024

    async def test_an_agent_is_not_handed_on(self, shared: SshWorld, tmp_path: Path) -> None:
        path = tmp_path / "agent"
        server = await asyncio.start_unix_server(_greet, path)
        async with server:
            argv = ["env", f"SSH_AUTH_SOCK={path}", *shared.ssh("-A", "--", "echo =$SSH_AUTH_SOCK")]
            assert (await shared.run(argv))[1] == b"=\n"


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    writer.write_eof()


async def _greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await shut(writer)


def _waiting(world: SshWorld) -> int:
    """Bytes that lie in the gateway for clients."""
    return sum(
        one._wire.waiting()
        for one in world.house.inside
        if isinstance(one, door.Door) and one._wire is not None
    )


class TestLogin:
    async def test_each_is_told_with_its_key_and_source(self, world: SshWorld) -> None:
        await world.run(world.ssh("--", "true"))
        [login] = world.doorway.logins
        assert login.visit.sandbox_id == SANDBOX
        assert str(login.visit.fingerprint).startswith("SHA256:")
        assert login.source == "127.0.0.1"
        log = (world.sshd.folder / "log").read_text()
        assert f"ID {login.visit.fingerprint}" in log  # the sandbox's own log says who came

    async def test_a_wrong_key_and_an_unknown_sandbox_look_alike(self, world: SshWorld) -> None:
        stranger = world.admit("stranger", to=OTHER)
        wrong = await world.run(world.ssh("--", "true", key=stranger))
        unknown = await world.run(world.ssh("--", "true", to="sandbox-zzzzzzzzzzzz"))
        assert wrong[0] == unknown[0] == 255
        assert "Permission denied (publickey,keyboard-interactive,password)" in wrong[2]
        assert wrong[2].replace(SANDBOX, "X") == unknown[2].replace("sandbox-zzzzzzzzzzzz", "X")

    async def test_odd_names_open_nothing(self, world: SshWorld) -> None:
        """OpenSSH's client sends few of them, so another one does, without any check of its own."""
        world.house.sources = Guesses(world.house.clock, free=100, longest=1)
        argv = [sys.executable, "-c", CLIENT, str(world.port), str(world.key)]
        code, out, err = await world.run([*argv, *(name.hex() for name in ODD_NAMES)])
        assert (code, err) == (0, "")
        said = out.decode().split()
        assert len(said) == len(ODD_NAMES)
        assert set(said) <= {"PermissionDenied", "IllegalUserName", "DisconnectError"}, said
        assert not world.doorway.logins

    async def test_a_password(self, world: SshWorld, tmp_path: Path) -> None:
        code, out, err = await _with_password(world, tmp_path, PASSWORD)
        assert (code, out) == (0, b"in\n"), err
        assert world.doorway.logins[0].visit.fingerprint is None

    async def test_wrong_passwords_are_slowed_down_and_then_shut_out(
        self, world: SshWorld, tmp_path: Path
    ) -> None:
        for _ in range(4):
            code, _, err = await _with_password(world, tmp_path, "wrong")
            assert code == 255
            if "too many failed logins" in err:
                break
        else:
            raise AssertionError("ten wrong passwords cost nothing")
        assert world.house.passwords.wait(SANDBOX) == 0  # nobody shuts others out of theirs so soon
        for _ in range(5):  # or the wait might be over before the next one comes
            world.house.sources.failed("127.0.0.1")
        asked = world.doorway.asked
        code, _, err = await world.run(world.ssh("--", "true"))
        assert code == 255
        assert "too many failed logins from your address; try again in" in err
        assert world.doorway.asked == asked
        assert not world.doorway.logins

    async def test_a_sandbox_that_is_guessed_at_takes_keys_on(self, world: SshWorld) -> None:
        for _ in range(40):
            world.house.passwords.failed(SANDBOX)
        assert world.house.passwords.wait(SANDBOX) > 0
        assert (await world.run(world.ssh("--", "true")))[0] == 0

    async def test_limits_by_source_and_by_sandbox(self, tmp_path: Path) -> None:
        async with ssh_world(tmp_path, per_source=3, per_sandbox=2) as world:
            argv = world.ssh("--", "echo in; exec sleep 60")
            async with background(argv) as one, background(argv) as two:
                await says(one, b"in")
                await says(two, b"in")
                code, _, err = await world.run(world.ssh("--", "true"))
                assert (code, f"too many are logged in at {SANDBOX}" in err) == (255, True)
                _, third = await open_port(world.port)
                code, _, err = await world.run(world.ssh("--", "true"))
                assert (code, "too many connections from your address" in err) == (255, True)
                await shut(third)

    async def test_the_api_is_away(self, world: SshWorld) -> None:
        world.doorway.failure = Unavailable("the api is away")
        code, _, err = await world.run(world.ssh("--", "true"))
        assert (code, "the platform does not answer at the moment" in err) == (255, True)
        world.doorway.failure = None
        assert (await world.run(world.ssh("--", "true")))[0] == 0


async def _with_password(world: SshWorld, folder: Path, password: str) -> tuple[int, bytes, str]:
    """Log in as a person would, who types it at every prompt."""
    helper = folder / "askpass"
    helper.write_text(f"#!/bin/sh\necho '{password}'\n")
    helper.chmod(0o700)
    argv = [word for word in world.ssh("--", "echo in") if word != "BatchMode=yes"]
    argv = [word if word != "IdentitiesOnly=yes" else "PubkeyAuthentication=no" for word in argv]
    at = argv.index("-o")
    argv = [*argv[:at], *argv[at + 1 :]] if argv[at + 1] == "-o" else argv
    env = ["env", f"SSH_ASKPASS={helper}", "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:0"]
    return await world.run([*env, *argv])


class TestEnds:
    async def test_a_key_that_is_taken_away_ends_its_sessions(self, world: SshWorld) -> None:
        async with background(world.ssh("--", "echo in; exec sleep 60")) as process:
            await says(process, b"in")
            world.doorway.keys[SANDBOX].clear()
            code, err = await ends(process, within=5)
        assert (code, "the SSH key was taken away" in err) == (255, True)
        await empty(world)

    async def test_forwarding_alone_ends_with_it_too(self, world: SshWorld) -> None:
        port = free_port()
        async with background(
            world.ssh("-N", "-L", f"{port}:127.0.0.1:{world.sshd.port}")
        ) as process:
            reader, writer = await open_port(port)
            assert await reader.readline()
            world.doorway.keys[SANDBOX].clear()
            code, err = await ends(process, within=5)
            assert (code, "the SSH key was taken away" in err) == (255, True)
            await reader.read(-1)
            await shut(writer)

    async def test_a_sandbox_that_is_destroyed_says_so(self, world: SshWorld) -> None:
        sentence = f"{SANDBOX} has stopped: it was destroyed"
        async with background(world.ssh("--", "echo in; exec sleep 60")) as process:
            await says(process, b"in")
            world.doorway.over[SANDBOX] = sentence
            world.reach.cut()
            code, err = await ends(process, within=5)
        assert code == 255
        assert err.count(sentence) == 1
        await empty(world)

    async def test_a_host_that_is_killed_is_told_and_left(self, world: SshWorld) -> None:
        upload = world.ssh("--", "echo in; exec cat >/dev/null")
        async with background(upload) as process:
            await says(process, b"in")
            assert process.stdin is not None
            process.stdin.write(b"x" * 1_000_000)
            world.reach.cut()
            code, err = await ends(process, within=5)
        assert (code, f"the connection into {SANDBOX} broke off" in err) == (255, True)
        assert (await world.run(world.ssh("--", "true")))[0] == 0  # and the next one comes in

    async def test_one_that_has_stopped_answers_with_a_sentence(self, world: SshWorld) -> None:
        world.reach.sandboxes[SANDBOX] = SandboxStopped(f"{SANDBOX} has stopped: it was destroyed")
        code, _, err = await world.run(world.ssh("--", "true"))
        assert (code, f"{SANDBOX} has stopped: it was destroyed" in err) == (255, True)
        await empty(world)

    async def test_what_nobody_expects_ends_it_with_a_sentence(
        self, world: SshWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The client would wait for its channel for ever."""
        world.doorway.host_keys[SANDBOX] = ["no key at all"]
        code, _, err = await world.run(world.ssh("--", "true"))
        assert (code, "the platform failed to let you in" in err) == (255, True)
        assert f"cannot let somebody into {SANDBOX}" in caplog.messages
        assert "KeyImportError" in caplog.text
        await empty(world)

    async def test_one_that_is_woken_is_waited_for(self, world: SshWorld) -> None:
        world.reach.hold = asyncio.Event()
        async with background(world.ssh("--", "echo awake")) as process:
            async with asyncio.timeout(20):
                while not world.doorway.logins:
                    await asyncio.sleep(0.01)
            world.reach.hold.set()
            await says(process, b"awake")

    async def test_another_host_key_lets_nobody_in(self, world: SshWorld) -> None:
        world.doorway.host_keys[SANDBOX] = world.house.keys.host_lines
        code, _, err = await world.run(world.ssh("--", "true"))
        assert (code, "shows another host key than its own" in err) == (255, True)

    async def test_a_client_that_vanishes_takes_its_command_along(self, world: SshWorld) -> None:
        async with background(world.ssh("-tt", "--", "echo in; exec sleep 61")) as process:
            await says(process, b"in")
            process.kill()
            await process.wait()
            await empty(world)

    async def test_the_gateway_that_is_stopped_says_so(self, tmp_path: Path) -> None:
        async with contextlib.AsyncExitStack() as outer:
            async with ssh_world(tmp_path) as world:
                argv = world.ssh("--", "echo in; exec sleep 60")
                process = await outer.enter_async_context(background(argv))
                await says(process, b"in")
            code, err = await ends(process)
            assert (code, "the gateway is being stopped" in err) == (255, True)


class TestGarbage:
    @pytest.mark.parametrize(
        "data",
        [b"", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 4096, os.urandom(4096),
         b"SSH-2.0-" + b"a" * 100_000],
        ids=["nothing", "http", "lengths", "noise", "an endless name"],
    )  # fmt: skip
    async def test_is_ended_and_hurts_nobody(self, shared: SshWorld, data: bytes) -> None:
        reader, writer = await open_port(shared.port)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
        await shut(writer)
        assert (await shared.run(shared.ssh("--", "true")))[0] == 0


async def test_a_place_that_somebody_has_is_refused_by_name(shared: SshWorld) -> None:
    serving = server.serving(shared.house, "127.0.0.1", shared.port)
    with pytest.raises(Conflict, match=f"cannot listen on 127.0.0.1:{shared.port}") as told:
        await serving.__aenter__()
    assert "ssh_port" in str(told.value.hint)
