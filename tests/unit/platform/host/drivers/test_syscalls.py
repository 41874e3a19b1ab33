"""The filter around a VMM, asked for every call that it refuses, and for those that a VMM needs."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

from runtools.platform.host.drivers.qemu.syscalls import REFUSED

CLONE, CLONE3, SOCKET, SOCKETPAIR, GETPID = 56, 435, 41, 53, 39
NAMESPACES = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}

# Asks with arguments that do nothing where they are let through; prints the error of each, 0: none.
_ASK = """
import ctypes, json, sys
from runtools.platform.host.drivers.qemu import syscalls
from runtools.platform.kit import linux
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
if sys.argv[1] == "behind":
    linux.filter_system_calls(syscalls.program())
found = {}
for name, (number, *given) in json.loads(sys.argv[2]).items():
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(each) for each in [*given, *[-1] * (6 - len(given))]]
    answer = libc.syscall(ctypes.c_long(number), *arguments)
    found[name] = ctypes.get_errno() if answer == -1 else 0
print(json.dumps(found))
"""


def asked(calls: Mapping[str, list[int]], where: str = "behind") -> dict[str, int]:
    argv = [sys.executable, "-c", _ASK, where, json.dumps(calls)]
    found: dict[str, int] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return found


def test_each_refused_call_is_refused() -> None:
    calls = {name: [number] for name, number in REFUSED.items()}
    assert asked(calls) == dict.fromkeys(REFUSED, errno.EPERM)


def test_without_it_some_are_not() -> None:
    calls = {name: [REFUSED[name]] for name in ("kcmp", "unshare", "personality", "setns")}
    assert errno.EPERM not in asked(calls, "before").values()


def test_no_new_namespace_comes_by_clone() -> None:
    # With an invalid set of flags (CLONE_THREAD alone) nothing is started where it is let through.
    calls = {name: [CLONE, 0x10000 | flag, 0] for name, flag in NAMESPACES.items()}
    assert asked(calls) == dict.fromkeys(NAMESPACES, errno.EPERM)
    assert asked({"none": [CLONE, 0x10000, 0]}) == {"none": errno.EINVAL}


def test_clone3_is_said_to_be_absent() -> None:
    assert asked({"clone3": [CLONE3, 0, 0]}) == {"clone3": errno.ENOSYS}


@pytest.mark.parametrize("call", [SOCKET, SOCKETPAIR])
def test_sockets_are_local_ones(call: int) -> None:
    families = {"inet": 2, "inet6": 10, "netlink": 16, "packet": 17, "alg": 38, "vsock": 40}
    calls = {name: [call, family, 1, 0] for name, family in families.items()}
    assert asked(calls) == dict.fromkeys(families, errno.EPERM)


def test_what_a_vmm_needs_is_let_through() -> None:
    assert asked({"unix": [SOCKET, 1, 1, 0], "getpid": [GETPID]}) == {"unix": 0, "getpid": 0}


def test_calls_of_another_abi_end_the_process() -> None:
    x32 = {"getpid": [0x40000000 | GETPID]}
    with pytest.raises(subprocess.CalledProcessError) as failed:
        asked(x32)
    assert failed.value.returncode == -31  # SIGSYS
