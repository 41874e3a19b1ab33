"""What a VMM and all around it may never ask of the kernel: a filter laid over QEMU's own.

QEMU's filter (`-sandbox`) keeps it from starting programs and from other privileges, and is laid by
QEMU itself, after it has read its command line. This one holds from before the first program of the
chain. It refuses what no VMM needs and what weaknesses of kernels were found in most: new namespaces
(and with them all that a make-believe root may do), mounts, other processes' memory, keys, BPF,
io_uring, userfaultfd, and every family of sockets but the local one. A refused call is answered with
EPERM; a call of another architecture ends the process.
"""

from __future__ import annotations

import errno
import socket
import struct

_ARCHITECTURE = 0xC000003E  # x86-64
_OTHER_ABI = 0x4000_0000  # x32 marks its calls so

_CLONE, _CLONE3, _SOCKET, _SOCKETPAIR = 56, 435, 41, 53
# Every CLONE_NEW…: time, mount, cgroup, uts, ipc, user, pid, net.
_NEW_NAMESPACES = 0x7E02_0080

REFUSED = {
    "ptrace": 101,
    "syslog": 103,
    "personality": 135,
    "pivot_root": 155,
    "adjtimex": 159,
    "chroot": 161,
    "acct": 163,
    "settimeofday": 164,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "sethostname": 170,
    "setdomainname": 171,
    "iopl": 172,
    "ioperm": 173,
    "init_module": 175,
    "delete_module": 176,
    "quotactl": 179,
    "clock_settime": 227,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "migrate_pages": 256,
    "unshare": 272,
    "move_pages": 279,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "clock_adjtime": 305,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
"""Calls that are refused whatever their arguments, by their numbers on x86-64."""

# Words of the machine that judges (linux/filter.h), and where it finds what it judges.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16

_ALLOW = 0x7FFF_0000
_KILL = 0x8000_0000
_ERRNO = 0x0005_0000


def program() -> bytes:
    """The filter, as the kernel reads it."""
    refuse, absent = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    words = [
        _word(_LOAD, _ARCH),
        _word(_EQUAL, _ARCHITECTURE, 1, 0),
        _word(_RETURN, _KILL),
        _word(_LOAD, _NUMBER),
        *_if(_AT_LEAST, _OTHER_ABI, [_word(_RETURN, _KILL)]),
        # Its arguments lie in memory, where nobody can judge them: who is told that it is not there
        # takes the older call.
        *_if(_EQUAL, _CLONE3, [_word(_RETURN, absent)]),
    ]
    for number in REFUSED.values():
        words += _if(_EQUAL, number, [_word(_RETURN, refuse)])
    words += _if(
        _EQUAL,
        _CLONE,
        [
            _word(_LOAD, _FIRST_ARGUMENT),
            *_if(_ANY_BIT, _NEW_NAMESPACES, [_word(_RETURN, refuse)]),
            _word(_RETURN, _ALLOW),
        ],
    )
    for number in (_SOCKET, _SOCKETPAIR):
        family = [
            _word(_LOAD, _FIRST_ARGUMENT),
            *_if(_EQUAL, socket.AF_UNIX, [_word(_RETURN, _ALLOW)]),
            _word(_RETURN, refuse),
        ]
        words += _if(_EQUAL, number, family)
    words.append(_word(_RETURN, _ALLOW))
    return b"".join(words)


def _word(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)


def _if(test: int, value: int, then: list[bytes]) -> list[bytes]:
    """The words, or on past them."""
    return [_word(test, value, 0, len(then)), *then]
