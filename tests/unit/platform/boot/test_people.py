from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtools.errors import InvalidRequest, Unavailable
from runtools.platform.boot import doctor, people
from runtools.platform.boot.people import Person, caller, unprivileged
from runtools.platform.kit.config import Settings
from runtools.platform.kit.process import run

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
SHOW = "import os; print(os.getuid()); print(open('/proc/self/status').read())"


def facts(output: bytes) -> dict[str, str]:
    uid, _, status = output.decode().partition("\n")
    pairs = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {
        "uid": uid,
        "caps": pairs["CapEff"],
        "bound": pairs["CapBnd"],
        "locked": pairs["NoNewPrivs"],
    }


NOTHING = {"caps": "0" * 16, "bound": "0" * 16, "locked": "1"}


@root_only
async def test_another_person_has_no_powers():
    nobody = pwd.getpwnam("nobody")
    person = Person("nobody", nobody.pw_uid, nobody.pw_gid)
    done = await run(person.command(["/usr/bin/python3", "-c", SHOW]))
    assert facts(done.stdout) == {"uid": str(nobody.pw_uid), **NOTHING}


@root_only
async def test_bare_root_has_no_powers_either():
    done = await run(Person("root", 0, 0, bare=True).command([sys.executable, "-c", SHOW]))
    assert facts(done.stdout) == {"uid": "0", **NOTHING}


@root_only
def test_behind_sudo_it_is_the_one_who_called():
    assert caller({"SUDO_UID": str(pwd.getpwnam("nobody").pw_uid)}).name == "nobody"
    assert caller({"SUDO_UID": "0"}).name == "root"
    assert caller({}).name == "root"


@root_only
async def test_a_service_user_that_does_not_exist_is_named():
    with pytest.raises(InvalidRequest, match="there is no user 'no-such-user'"):
        await unprivileged(Settings(service_user="no-such-user"), {})


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all that there is of the platform, and everybody may pass on the way there."""
    folder = Path(tempfile.mkdtemp())
    python = folder / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    yield folder
    shutil.rmtree(folder)


SUDO = {"SUDO_UID": str(pwd.getpwnam("nobody").pw_uid)}
SERVICE = Settings(service_user="daemon")


@root_only
class TestWhoCanReadTheInstallation:
    async def test_the_caller_before_the_service_user(self, installation: Path) -> None:
        installation.chmod(0o755)
        assert (await unprivileged(SERVICE, SUDO)).name == "nobody"
        assert (await unprivileged(SERVICE, {})).name == "daemon"

    async def test_the_service_user_where_the_caller_cannot(self, installation: Path) -> None:
        installation.chmod(0o750)
        shutil.chown(installation, group=pwd.getpwnam("daemon").pw_gid)
        assert (await unprivileged(SERVICE, SUDO)).name == "daemon"
        assert caller(SUDO).name == "nobody"  # who gets the key

    @pytest.mark.parametrize("environ", [SUDO, {}])
    async def test_nobody_but_root(self, installation: Path, environ: dict[str, str]) -> None:
        """As in a shell by `sudo -i`, with a checkout in root's home."""
        installation.chmod(0o700)
        assert await unprivileged(SERVICE, environ) == Person("root", 0, 0, bare=True)

    async def test_the_doctor_says_so(
        self, installation: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installation.chmod(0o700)
        monkeypatch.setattr(doctor, "environment", lambda: SUDO)
        found = await doctor._installation(SERVICE)
        assert (found.ok, found.level) == (False, "warning")
        assert "install where everybody can read" in found.advice


async def test_a_machine_that_is_too_busy_to_find_out_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def late(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(people, "run", late)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Unavailable, match="did not load the platform within"):
        await unprivileged(Settings(service_user="nobody"), {})


async def test_who_is_not_root_is_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    assert (await unprivileged(SERVICE, {})).name == "nobody"
