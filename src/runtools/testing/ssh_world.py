"""What the SSH gateway is tested and measured against: OpenSSH's own server and client on this machine.

An sshd on a port of the loopback stands for the one inside a sandbox, `CutReach` leads there, and a table
of keys and passwords stands for the api.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import uvloop

from runtools.errors import NotFound, RunToolsError
from runtools.platform.core.ports.doorway import (
    Address,
    Ends,
    Entering,
    Entry,
    KeyShown,
    Over,
    PasswordShown,
    Visit,
)
from runtools.platform.gateway.ssh import keys as gateway_keys
from runtools.platform.gateway.ssh import server
from runtools.platform.gateway.ssh.house import House, house
from runtools.platform.kit.clock import Clock, SystemClock
from runtools.testing.fake_reach import FakeReach

SANDBOX = "sandbox-0000000000a1"
OTHER = "sandbox-0000000000b2"
PASSWORD = "correct horse"

_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
UsePAM no
StrictModes no
UseDNS no
PermitRootLogin yes
PasswordAuthentication no
AuthorizedKeysFile {folder}/authorized
TrustedUserCAKeys {folder}/authority.pub
Subsystem sftp internal-sftp
AcceptEnv LANG LC_* COLOR
SetEnv SHLVL=5
MaxSessions 10
MaxStartups 100
"""


def sshd_program() -> str | None:
    """OpenSSH's server, where it is installed."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        number: int = found.getsockname()[1]
        return number


@dataclass
class Sshd:
    """An sshd of ours."""

    folder: Path
    port: int
    host_key: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it with all that it has started for its clients."""
        self.process.terminate()
        self.process.wait()


def start_sshd(folder: Path, authority: str) -> Sshd:
    """An sshd that takes whoever shows a certificate of that authority."""
    folder.mkdir(parents=True, exist_ok=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    (folder / "host_key").write_bytes(key.export_private_key())
    (folder / "host_key").chmod(0o600)
    (folder / "authority.pub").write_text(f"{authority}\n")
    (folder / "authorized").touch()
    port = free_port()
    config = folder / "config"
    config.write_text(_CONFIG.format(port=port, folder=folder))
    Path("/run/sshd").mkdir(exist_ok=True)
    program = sshd_program()
    assert program is not None
    with (folder / "log").open("wb") as log:
        argv = [program, "-D", "-e", "-f", str(config)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log, stdout=log)
    return Sshd(folder, port, gateway_keys.line(key), process)


@dataclass
class CutReach(FakeReach):
    """One whose streams can be held up, and cut."""

    transports: list[asyncio.Transport] = field(default_factory=list)
    hold: asyncio.Event | None = None

    async def attach(
        self, sandbox_id: str, port: int, protocol: asyncio.Protocol, *, wakes: bool = True
    ) -> asyncio.Transport:
        """See `Reach`."""
        if self.hold is not None:
            await self.hold.wait()
        transport = await super().attach(sandbox_id, port, protocol, wakes=wakes)
        self.transports.append(transport)
        return transport

    def cut(self) -> None:
        """Cut all streams, as the end of a host does."""
        for transport in self.transports:
            transport.abort()
        self.transports.clear()


@dataclass
class TableDoorway:
    """`Doorway` by a table."""

    keys: dict[str, set[str]] = field(default_factory=dict)  # fingerprints by sandbox
    host_keys: dict[str, list[str]] = field(default_factory=dict)
    over: dict[str, str] = field(default_factory=dict)  # sentences by sandbox
    logins: list[Entering] = field(default_factory=list)
    asked: int = 0
    failure: RunToolsError | None = None
    limited: bool = False  # the org of the sandboxes has limits to keep
    woken: list[str] = field(default_factory=list)
    asleep_for_good: RunToolsError | None = None
    room: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """There is room for what wakes."""
        self.room.set()

    async def key_opens(self, shown: KeyShown) -> bool:
        """Whether the table has it."""
        self._count()
        return shown.fingerprint in self.keys.get(shown.sandbox_id, set())

    async def password_opens(self, shown: PasswordShown) -> bool:
        """Whether it is the one."""
        self._count()
        return shown.sandbox_id in self.keys and shown.password == PASSWORD

    async def enter(self, entering: Entering) -> Entry:
        """Note it."""
        self._count()
        self.logins.append(entering)
        visit = entering.visit
        if visit.fingerprint is not None and not self._opens(visit):
            raise NotFound("the key opens no more")
        return Entry(host_keys=self.host_keys[visit.sandbox_id], wakes=not self.limited)

    async def ended(self, visits: Sequence[Visit]) -> Ends:
        """Those whose key is gone, and those whose sandbox is."""
        self._count()
        found = []
        for place, visit in enumerate(visits):
            if visit.sandbox_id in self.over:
                found.append(Over(place=place, because=self.over[visit.sandbox_id]))
            elif visit.fingerprint is not None and not self._opens(visit):
                found.append(Over(place=place, because="the SSH key was taken away"))
        return Ends(over=found, limited=list(range(len(visits))) if self.limited else [])

    async def waken(self, visit: Visit) -> None:
        """Note it, and wait for room."""
        self.woken.append(visit.sandbox_id)
        await self.room.wait()
        if self.asleep_for_good is not None:
            raise self.asleep_for_good

    async def announce(self, address: Address) -> None:
        """Nobody asks for it."""

    def _opens(self, visit: Visit) -> bool:
        return visit.fingerprint in self.keys.get(visit.sandbox_id, set())

    def _count(self) -> None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure


@dataclass
class SshWorld:
    """A gateway in front of an sshd, and what a person has who may come in.

    Attributes:
        folder: the person's: key and known hosts.
    """

    house: House
    port: int
    sshd: Sshd
    doorway: TableDoorway
    reach: CutReach
    folder: Path

    @property
    def key(self) -> Path:
        """The person's private key."""
        return self.folder / "id"

    def options(self, *, key: Path | None = None) -> list[str]:
        """What OpenSSH's programs are told, the port not included (its option has two names)."""
        pairs = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(key or self.key),
            "UserKnownHostsFile": str(self.folder / "known"),
            "StrictHostKeyChecking": "yes",
            "LogLevel": "INFO",
            "ControlPath": "none",
        }
        return [word for name, text in pairs.items() for word in ("-o", f"{name}={text}")]

    def ssh(self, *words: str, to: str = SANDBOX, key: Path | None = None) -> list[str]:
        """The command line of an ssh; options come before the ``--``."""
        place = ["-F", "none", "-p", str(self.port)]
        return ["ssh", *place, *self.options(key=key), *_before(words, f"{to}@127.0.0.1")]

    async def run(
        self, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 60
    ) -> tuple[int, bytes, str]:
        """Exit code, stdout and stderr of a command."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(timeout):
                out, err = await process.communicate(stdin)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, out, err.decode(errors="replace")

    def admit(self, fresh: str = "id", *, to: str = SANDBOX) -> Path:
        """A key of a person, which opens the sandbox."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        file = self.folder / fresh
        file.write_bytes(key.export_private_key())
        file.chmod(0o600)
        self.doorway.keys.setdefault(to, set()).add(key.get_fingerprint())
        return file


def _before(words: Sequence[str], target: str) -> list[str]:
    if "--" not in words:
        return [*words, target]
    at = list(words).index("--")
    return [*words[:at], target, *words[at:]]


@asynccontextmanager
async def ssh_world(
    folder: Path, *, clock: Clock | None = None, per_source: int = 64, per_sandbox: int = 64
) -> AsyncIterator[SshWorld]:
    """A running gateway before an sshd of its own."""
    home, person = folder / "gateway", folder / "person"
    home.mkdir(parents=True)
    person.mkdir()
    keys = gateway_keys.load(home)
    sshd = start_sshd(folder / "sshd", keys.authority_line)
    doorway = TableDoorway(host_keys={SANDBOX: [sshd.host_key], OTHER: [sshd.host_key]})
    reach = CutReach(sandboxes={SANDBOX: None, OTHER: None}, ports={22: sshd.port})
    made = house(
        doorway,
        reach,
        keys,
        clock or SystemClock(),
        per_source=per_source,
        per_sandbox=per_sandbox,
    )
    try:
        await _answers(sshd.port)
        async with server.serving(made, "127.0.0.1", 0) as port:
            world = SshWorld(made, port, sshd, doorway, reach, person)
            known = [f"[127.0.0.1]:{port} {line}\n" for line in keys.host_lines]
            (person / "known").write_text("".join(known))
            world.admit()
            yield world
    finally:
        sshd.stop()


async def _answers(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.02)


async def _serve(folder: Path) -> None:
    """A world for other processes: its ports and key in a line, until stdin is closed."""
    async with ssh_world(folder, per_source=1000, per_sandbox=1000) as world:
        public = asyncssh.read_private_key(world.key).export_public_key().decode()
        (world.sshd.folder / "authorized").write_text(public)
        said = {"gateway": world.port, "sshd": world.sshd.port, "key": str(world.key)}
        sys.stdout.write(f"{json.dumps(said)}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))  # as the gateway process does
