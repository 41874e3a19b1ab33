"""A process that was taken over: system calls made by it, at our word.

This is the position of whoever has broken out of a guest into its VMM: the very process, with its files,
its user, its view and every filter that it has laid upon itself. A debugger's means put the calls there
(ptrace(2), by root); to the kernel they are the process's own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

_STEP, _GET_REGISTERS, _SET_REGISTERS, _ATTACH, _DETACH = 9, 12, 13, 16, 17
_REGISTERS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base"),
    *("ds", "es", "fs", "gs"),
)
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_CALL = b"\x0f\x05"  # syscall
_NO_RESTART = 2**64 - 1
_SCRATCH = 1 << 16  # below the stack, beyond what a function may have put there
_ROOM = 1 << 14
_SECONDS = 30.0

NUMBERS = {
    "read": 0,
    "write": 1,
    "getpid": 39,
    "socket": 41,
    "clone": 56,
    "fork": 57,
    "execve": 59,
    "kill": 62,
    "ptrace": 101,
    "setuid": 105,
    "chroot": 161,
    "mount": 165,
    "umount2": 166,
    "mknodat": 259,
    "tgkill": 234,
    "unlinkat": 263,
    "prctl": 157,
    "getdents64": 217,
    "keyctl": 250,
    "openat": 257,
    "unshare": 272,
    "perf_event_open": 298,
    "setns": 308,
    "process_vm_readv": 310,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "close": 3,
    "readlink": 89,
    "flock": 73,
    "ioctl": 16,
    "rt_sigaction": 13,
}


class Ended(Exception):
    """The process did not live through the call; the signal is in the message."""


class Taken:
    """A process in our hands. Made by `taken`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._saved = self._registers()

    def call(self, name: str, *arguments: int | str | bytes) -> int:
        """Have it make a system call; what it returned, a negative error number included.

        Raises:
            Ended: it was killed for it.
        """
        registers = dict(self._saved)
        at = self._saved["rsp"] - _SCRATCH
        for register, argument in zip(_ARGUMENTS, arguments, strict=False):
            if isinstance(argument, int):
                registers[register] = argument & _NO_RESTART
                continue
            data = argument.encode() + b"\0" if isinstance(argument, str) else argument
            self.write(at, data)
            registers[register], at = at, at - len(data) - len(data) % 16 - 16
        registers |= {"rax": NUMBERS[name], "orig_rax": _NO_RESTART}
        code = self.read(registers["rip"], len(_CALL))
        self.write(registers["rip"], _CALL)
        try:
            self._set(registers)
            self._step()
            result = self._registers()["rax"]
        finally:
            with suppress(OSError):  # there may be nothing left to mend
                self.write(registers["rip"], code)
        return int.from_bytes(result.to_bytes(8, "little"), "little", signed=True)

    def fails(self, name: str, *arguments: int | str | bytes) -> str:
        """The name of the error that a call ends with, or what killed the process; it must not succeed."""
        try:
            result = self.call(name, *arguments)
        except Ended as exc:
            return str(exc)
        assert result < 0, f"{name}{arguments} gave {result}"
        return errno.errorcode[-result]

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Its openat(2) from its root."""
        return self.call("openat", -100, path, flags, 0o600)

    def listed(self, path: str) -> set[str]:
        """The names that it finds in a folder."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            raise OSError(-fd, path)
        names = set()
        at = self._saved["rsp"] - _SCRATCH - _ROOM
        while (size := self.call("getdents64", fd, at, _ROOM)) > 0:
            data, offset = self.read(at, size), 0
            while offset < size:
                (length,) = struct.unpack_from("H", data, offset + 16)
                names.add(data[offset + 19 : offset + length].split(b"\0")[0].decode())
                offset += length
        self.call("close", fd)
        return names - {".", ".."}

    def contents(self, path: str, size: int = 4096) -> bytes:
        """The beginning of a file, as it reads it."""
        fd = self.open(path)
        if fd < 0:
            raise OSError(-fd, path)
        at = self._saved["rsp"] - _SCRATCH - _ROOM
        got = self.call("read", fd, at, size)
        self.call("close", fd)
        return self.read(at, max(0, got))

    def read(self, at: int, size: int) -> bytes:
        """Its memory."""
        fd = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY)
        try:
            return os.pread(fd, size, at)
        finally:
            os.close(fd)

    def write(self, at: int, data: bytes) -> None:
        """Change its memory, its code too."""
        fd = os.open(f"/proc/{self.pid}/mem", os.O_WRONLY)
        try:
            os.pwrite(fd, data, at)
        finally:
            os.close(fd)

    def restore(self) -> None:
        """Let it go on as if nothing had been."""
        self._set(self._saved)

    def _step(self) -> None:
        _request(_STEP, self.pid)
        deadline = time.monotonic() + _SECONDS
        while (waited := os.waitpid(self.pid, _ALL | os.WNOHANG))[0] == 0:
            # A first thread that a filter has ended is not told of while others of the process live.
            if self._is_dead():
                raise Ended("SIGSYS")
            assert time.monotonic() < deadline, "the call does not return"
            time.sleep(0.001)
        status = waited[1]
        if os.WIFSIGNALED(status):
            raise Ended(signal.Signals(os.WTERMSIG(status)).name)
        if os.WIFEXITED(status):
            raise Ended(f"exit {os.WEXITSTATUS(status)}")
        stopped = os.WSTOPSIG(status)
        if stopped == signal.SIGSYS:
            raise Ended("SIGSYS")
        assert stopped == signal.SIGTRAP, signal.Signals(stopped).name

    def _is_dead(self) -> bool:
        stat = Path(f"/proc/{self.pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[0] in {"Z", "X"}

    def _registers(self) -> dict[str, int]:
        buffer = ctypes.create_string_buffer(8 * len(_REGISTERS))
        _request(_GET_REGISTERS, self.pid, buffer)
        words = struct.unpack(f"{len(_REGISTERS)}Q", buffer.raw)
        return dict(zip(_REGISTERS, words, strict=True))

    def _set(self, registers: dict[str, int]) -> None:
        data = struct.pack(f"{len(_REGISTERS)}Q", *(registers[name] for name in _REGISTERS))
        _request(_SET_REGISTERS, self.pid, ctypes.create_string_buffer(data, len(data)))


_ALL = 0x4000_0000  # __WALL: threads, and children of others


def _request(what: int, pid: int, data: ctypes.Array[ctypes.c_char] | None = None) -> None:
    if _libc.ptrace(what, pid, None, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextmanager
def taken(pid: int) -> Iterator[Taken]:
    """Take a process over, and let it go on afterwards if it still can."""
    _request(_ATTACH, pid)
    os.waitpid(pid, _ALL)
    one = Taken(pid)
    try:
        yield one
    finally:
        with suppress(ProcessLookupError):
            one.restore()
            _request(_DETACH, pid)
