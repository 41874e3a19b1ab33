from __future__ import annotations

import os
import pwd
import sys

import pytest

from runtools.errors import InvalidRequest
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
