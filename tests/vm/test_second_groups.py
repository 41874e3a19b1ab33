"""Version 2 of control groups on a kernel that has it: that of a sandbox, whose Debian has nothing else.

What bounds VMMs is taken into the sandbox as it is, and bounds processes there that stand for them.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import Path

import pytest

import runtools
from runtools.testing.cgroups import FILES
from runtools.testing.real_platform import Platform

pytestmark = pytest.mark.vm

SOURCE = Path(runtools.__file__).parent
NEEDED = (
    *("*.py", "platform/*.py", "platform/kit/*.py", "platform/host/*.py"),
    *("platform/host/drivers/*.py", "platform/host/drivers/qemu/*.py"),
)

TRIED = r"""
import json, os, signal, subprocess, time
from pathlib import Path
from runtools.platform.host.drivers.qemu.groups import Groups, Limits, _members, of_this_machine

UID = 0x7100_0000
found = of_this_machine()
mine = Groups("proven", found)
mine.make(UID, Limits(memory_bytes=64 << 20, vcpus=1, pids=12))
[folder] = mine._folders(UID)

def said(name):
    try:
        return (folder / name).read_text()
    except OSError:
        return None

def begun(line):
    words = ["sh", "-c", "read -r go; " + line]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    mine.admit(UID, child.pid)
    child.stdin.write(b"go\n")
    child.stdin.close()
    return child

told = {"version": found.version, "controllers": sorted(found.controllers)}
told["files"] = {one.name: [one.stat().st_mode, said(one.name)] for one in folder.iterdir()}
greedy = begun("exec python3 -c 'bytearray(256 << 20)'")
told["greedy"], told["why"] = greedy.wait(), mine.out_of_memory(UID)
forks = "while True:\n try:\n  os.fork() or time.sleep(600)\n except OSError:\n  time.sleep(600)"
crowd = begun(f"exec python3 -c 'import os, time\n{forks}'")
while not int(said("pids.events").split()[1]):
    time.sleep(0.01)
told["most"] = len(_members(folder))
told["removed"] = [mine.remove(UID)]
mine.kill(UID)
told["crowd"] = crowd.wait()
while not mine.remove(UID):
    time.sleep(0.01)
mine.close()
told["left"] = folder.parent.exists()
print(json.dumps(told))
"""


def test_limits_are_held_and_all_are_killed(platform: Platform) -> None:
    """By the kernel itself; and the files of the model that other tests use are there as it says."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for pattern in NEEDED:
            for file in SOURCE.glob(pattern):
                archive.write(file, Path("runtools", file.relative_to(SOURCE)))
    box = platform.rt.sandboxes.create()
    try:
        box.files.write("/root/runtools.zip", packed.getvalue())
        ran = box.exec(["python3", "-c", TRIED], env={"PYTHONPATH": "/root/runtools.zip"})
        assert ran.exit_code == 0, ran.stderr
    finally:
        box.destroy()
    told = json.loads(ran.stdout)
    files = told.pop("files")
    assert told == {
        "version": 2,
        "controllers": ["cpu", "memory", "pids"],
        "greedy": -9,
        "why": "the monitor took all of the 64 MB that it may have",
        "most": 12,
        "removed": [False],
        "crowd": -9,
        "left": False,
    }
    written = {
        "memory.max": "67108864\n",
        "memory.swap.max": "0\n",
        "cpu.max": "200000 100000\n",
        "pids.max": "12\n",
    }
    for name, (way, first) in FILES.items():
        mode, text = files[name]
        assert (bool(mode & stat.S_IRUSR), bool(mode & stat.S_IWUSR)) == ("r" in way, "w" in way), (
            name
        )
        if way == "rw":
            assert text == written.get(name, first), name
