"""SSH through the whole of it: the command line, the api, the gateway, and an sshd as the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from runtools.platform.core.ports.doorway import Address
from runtools.platform.gateway.ssh import house as houses
from runtools.platform.gateway.ssh import keys, server
from runtools.platform.gateway.ssh.asking import ApiDoorway
from runtools.platform.kit.clock import SystemClock
from runtools.platform.kit.db import Database
from runtools.testing import api_world
from runtools.testing.api_world import World
from runtools.testing.ssh_world import CutReach, free_port, sshd_program, start_sshd

pytestmark = [
    pytest.mark.skipif(
        sshd_program() is None or os.geteuid() != 0, reason="needs openssh-server, and root for it"
    ),
    pytest.mark.asyncio(loop_scope="module"),
]


@dataclass
class Platform:
    """An api with a gateway, and a command line for it."""

    world: World
    box: str
    home: Path

    async def run(self, *argv: str, program: str = "runtools") -> tuple[int, str, str]:
        """A command; its exit code, stdout and stderr."""
        line = "import sys; from runtools.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", line] if program == "runtools" else [program]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        env |= {"RUNTOOLS_API_URL": self.world.url, "RUNTOOLS_API_KEY": self.world.key}
        process = await asyncio.create_subprocess_exec(
            *command,
            *argv,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """One for all tests here."""
    folder = tmp_path_factory.mktemp("whole")
    port = free_port()
    (folder / "gateway").mkdir()
    (folder / "person").mkdir()
    known = keys.load(folder / "gateway")
    async with contextlib.AsyncExitStack() as stack:
        db = Database(f"sqlite:///{folder}/db/runtools.db")
        world = await stack.enter_async_context(api_world.world(db, folder, ssh_port=port))
        sshd = start_sshd(folder / "sshd", known.authority_line)
        stack.callback(sshd.stop)
        box = (await world.create(name="web"))["id"]
        url = f"/v1/sandboxes/{box}/files?path=/etc/ssh/ssh_host_ed25519_key.pub"
        await world.http.put(url, content=sshd.host_key.encode())
        doorway = await stack.enter_async_context(ApiDoorway(world.url, world.token("gateway")))
        made = houses.house(
            doorway,
            CutReach(sandboxes={box: None}, ports={22: sshd.port}),
            known,
            SystemClock(),
            per_source=64,
            per_sandbox=64,
        )
        await stack.enter_async_context(server.serving(made, "127.0.0.1", port))
        address = Address(host="127.0.0.1", port=port, host_keys=known.host_lines)
        await doorway.announce(address)
        yield Platform(world, box, folder / "person")


class TestSandboxSsh:
    async def test_it_needs_no_set_up_and_leaves_nothing(self, platform: Platform) -> None:
        code, out, err = await platform.run(
            "sandbox", "ssh", "web", "--", "echo out; echo err >&2; exit 7"
        )
        assert (code, out, err) == (7, "out\n", "err\n")
        assert list(platform.home.iterdir()) == []

    async def test_no_such_sandbox(self, platform: Platform) -> None:
        code, _, err = await platform.run("sandbox", "ssh", "nothing", "--", "true")
        assert (code, "no sandbox 'nothing'" in err) == (1, True)


class TestSshConfig:
    async def test_the_entry_is_all_that_ssh_needs(self, platform: Platform) -> None:
        code, entry, err = await platform.run("ssh-config", "web")
        assert code == 0, err
        assert entry.startswith("Host web\n    HostName 127.0.0.1\n")
        file = platform.home / "entry"
        file.write_text(entry)
        said = await platform.run("-F", str(file), "web", "echo in", program="ssh")
        assert said == (0, "in\n", "")
        private = platform.home / ".config/runtools/ssh/id_ed25519"
        assert stat.S_IMODE(private.stat().st_mode) == 0o600

    async def test_written_it_takes_the_place_of_the_earlier_one(self, platform: Platform) -> None:
        config = platform.home / ".ssh/config"
        config.parent.mkdir(mode=0o700)
        config.write_text("Host other\n    User me\n")
        for _ in range(2):
            code, _, err = await platform.run("ssh-config", "web", "--host", "box", "--write")
            assert code == 0, err
        text = config.read_text()
        assert text.count("Host box\n") == 1
        assert text.endswith("Host other\n    User me\n")
        said = await platform.run("-F", str(config), "box", "echo in", program="ssh")
        assert said == (0, "in\n", "")


async def test_a_login_is_in_the_audit_log_and_a_removed_key_ends_it(platform: Platform) -> None:
    file = platform.home / "own"
    argv = ["-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    assert (await platform.run(*argv, program="ssh-keygen"))[0] == 0
    http = platform.world.http
    body = {"label": "own", "publicKey": file.with_suffix(".pub").read_text()}
    registered = (await http.post("/v1/ssh-keys", json=body)).json()["data"]
    port = platform.world.platform.settings.ssh_port
    options = ["-F", "none", "-i", str(file), "-p", str(port), "-o", "BatchMode=yes"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"]
    options += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    session = asyncio.create_task(
        platform.run(*options, f"{platform.box}@127.0.0.1", "echo in; exec sleep 60", program="ssh")
    )

    async def is_in() -> bool:
        found = (await http.get("/v1/audit?action=ssh.login")).json()["data"]
        return any(one["actor"] == registered["id"] for one in found)

    await api_world.holds(is_in)
    assert (await http.delete("/v1/ssh-keys/own")).is_success
    async with asyncio.timeout(60):
        code, _, err = await session
    assert code == 255
    assert "was taken away" in err
