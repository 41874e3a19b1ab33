from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runtools.errors import Conflict
from runtools.platform.boot import home
from runtools.platform.boot.people import caller
from runtools.platform.kit.config import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home")


def test_an_install_id_is_made_once(settings):
    first = home.prepare(settings, caller({}))
    assert re.fullmatch(r"[a-z][a-z0-9]{5}", first)
    assert home.prepare(settings, caller({})) == first


def test_everybody_may_pass_and_nobody_may_list(settings):
    home.prepare(settings, caller({}))
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (settings.home, settings.host_home, settings.api_home, settings.log_folder)
    }
    assert modes == {"home": 0o711, "host": 0o711, "api": 0o700, "logs": 0o700}


def test_a_second_platform_on_one_home_is_refused(settings):
    home.prepare(settings, caller({}))
    file = settings.run_folder / "up.lock"
    assert home.holder(file) is None
    with home.lock(file, "a platform"):
        assert home.holder(file) == os.getpid()
        with pytest.raises(Conflict, match="is running already"), home.lock(file, "a platform"):
            pass
    assert home.holder(file) is None


HOLD = """
import fcntl, sys, time
file = open(sys.argv[2], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(1000)
"""


@pytest.fixture
def passable():
    """A folder that everybody may pass through."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("name", "is_ours"), [("runtools.platform", True), ("another", False)])
def test_who_may_not_open_the_lock_is_told_who_holds_it(passable, name, is_ours):
    """`runtools status`, `doctor` and `secret rekey` of an ordinary user."""
    file = passable / "up.lock"
    with home.lock(file, "a platform"):
        pass
    words = [sys.executable, "-c", HOLD, name, str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holding:
        holding.stdout.readline()
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            with pytest.raises(PermissionError):
                file.open()
            assert home.holder(file) == (holding.pid if is_ours else None)
            assert home.holder(passable / "none") is None
        finally:
            os.seteuid(0)
            holding.kill()
