"""Starting a command: in a session, a control group and a folder of its own, as a user.

`posix_spawn` of the C library puts the child straight into its control group (glibc ≥ 2.39) and never
copies the agent's memory; it is by far the cheapest way under emulation. What it cannot do (another
user, a group with an older C library) goes through `subprocess`, which forks.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pwd
import signal
import stat
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from runtools.guest.groups import Group
from runtools.guest.problems import Problem, invalid, of_errno

_SETSIGDEF: Final = 0x04
_SETSIGMASK: Final = 0x08
_SETSID: Final = 0x80
_SETCGROUP: Final = 0x100
_ROOM: Final = 1024  # more than posix_spawnattr_t, sigset_t or the file actions take
_SIGPIPE: Final = 13
_SIGXFSZ: Final = 25

_libc = ctypes.CDLL(None, use_errno=False)
JOINS_AT_BIRTH: Final = hasattr(_libc, "posix_spawnattr_setcgroup_np")


@dataclass(frozen=True, slots=True)
class User:
    """Who a command runs as; ``switch`` says whether that is another than the agent itself."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str
    switch: bool


def find_user(name: str) -> User:
    """A user of the machine, by name or number.

    Raises:
        Problem: ``invalid_request``: there is no such user; ``file_forbidden``: the agent may not.
    """
    # Asking the system costs a dozen calls through code that nothing else uses; the file seldom changes.
    users = os.stat("/etc/passwd")
    try:
        entry = _entry(name, users.st_mtime_ns, users.st_ino)
    except (KeyError, ValueError) as exc:
        raise invalid(f"there is no user {name!r} inside", "name one of /etc/passwd") from exc
    mine = os.geteuid()
    if mine not in {0, entry.pw_uid}:
        raise Problem("file_forbidden", f"the agent may not become {name}")
    switch = entry.pw_uid != mine
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)) if switch else ()
    return User(
        entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell, switch
    )


@lru_cache(maxsize=16)
def _entry(name: str, _changed: int, _file: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        if not name.isdecimal():
            raise
        return pwd.getpwuid(int(name))


def find_program(name: str, env: Mapping[str, str], cwd: str) -> str:
    """What to execute for the first word of an argument list.

    Raises:
        Problem: ``file_missing`` or ``file_forbidden``.
    """
    if "/" in name:
        return name
    refused = None
    for folder in env.get("PATH", "").split(":"):
        place = f"{folder or '.'}/{name}"
        try:
            found = os.stat(place if place.startswith("/") else f"{cwd}/{place}")
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            if found.st_mode & 0o111:
                return place
            refused = place
    if refused:
        raise _unfit("file_forbidden", f"{refused} is not executable", refused)
    raise _unfit(
        "file_missing",
        f"there is no program {name!r} inside",
        name,
        hint="it is looked for in PATH; a shell line needs command to be a string",
    )


def start(
    argv: Sequence[str],
    program: str,
    env: Mapping[str, str],
    cwd: str,
    fds: tuple[int, int, int],
    user: User,
    group: Group | None,
    terminal: str | None = None,
) -> Child:
    """Start it. ``terminal`` is the place of the one that is to be its own, and that ``fds`` are.

    Raises:
        Problem: it was not started; the code says why.
    """
    try:
        if user.switch or (group is not None and not JOINS_AT_BIRTH):
            return _fork(argv, program, env, cwd, fds, user, group, terminal is not None)
        return _spawn(argv, program, env, cwd, fds, group, terminal)
    except UnicodeEncodeError as exc:
        raise invalid("a word or an environment value is not valid Unicode") from exc
    except OSError as exc:
        raise _why(exc, program, cwd, user) from exc


class Child:
    """A started command."""

    __slots__ = ("_popen", "pid", "pidfd")

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._popen = popen
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:  # no more files: who cannot be watched does not live
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if popen is not None:
                popen.returncode = -signal.SIGKILL
            raise

    def reap(self) -> int:
        """How it ended: its exit code, or the negative number of the signal that killed it."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.pidfd)
        if self._popen is not None:
            self._popen.returncode = status  # it must not wait for a pid that is somebody else's
        return status


class _Attributes:
    """Attributes of `posix_spawn`, set once: those without a group, whose buffer `_spawn` copies."""

    def __init__(self) -> None:
        self.plain = ctypes.create_string_buffer(_ROOM)
        _check(_libc.posix_spawnattr_init(self.plain))
        signals = ctypes.create_string_buffer(_ROOM)
        _libc.sigemptyset(signals)
        _check(_libc.posix_spawnattr_setsigmask(self.plain, signals))
        for number in (_SIGPIPE, _SIGXFSZ):  # Python ignores these; a command must not
            _libc.sigaddset(signals, number)
        _check(_libc.posix_spawnattr_setsigdefault(self.plain, signals))
        flags = _SETSID | _SETSIGMASK | _SETSIGDEF
        _check(_libc.posix_spawnattr_setflags(self.plain, ctypes.c_short(flags)))

    def joining(self, group: Group) -> ctypes.Array[ctypes.c_char]:
        """A copy that has the child born in the group."""
        copy = ctypes.create_string_buffer(_ROOM)
        ctypes.memmove(copy, self.plain, _ROOM)
        flags = _SETSID | _SETSIGMASK | _SETSIGDEF | _SETCGROUP
        _check(_libc.posix_spawnattr_setflags(copy, ctypes.c_short(flags)))
        _check(_libc.posix_spawnattr_setcgroup_np(copy, group.fd))
        return copy


def _spawn(
    argv: Sequence[str],
    program: str,
    env: Mapping[str, str],
    cwd: str,
    fds: tuple[int, int, int],
    group: Group | None,
    terminal: str | None,
) -> Child:
    attributes = _attributes.plain if group is None else _attributes.joining(group)
    actions = ctypes.create_string_buffer(_ROOM)
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        for target, fd in enumerate(fds):
            _check(_libc.posix_spawn_file_actions_adddup2(actions, fd, target))
        if terminal is not None:  # the first that a new session opens becomes its own
            _check(
                _libc.posix_spawn_file_actions_addopen(
                    actions, 0, os.fsencode(terminal), os.O_RDWR, 0
                )
            )
        _check(_libc.posix_spawn_file_actions_addchdir_np(actions, os.fsencode(cwd)))
        words = _strings(argv)
        settings = _strings([f"{name}={value}" for name, value in env.items()])
        pid = ctypes.c_int()
        _check(
            _libc.posix_spawn(
                ctypes.byref(pid), os.fsencode(program), actions, attributes, words, settings
            )
        )
        return Child(pid.value)
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)


def _strings(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*map(os.fsencode, words), None)


def _check(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _fork(
    argv: Sequence[str],
    program: str,
    env: Mapping[str, str],
    cwd: str,
    fds: tuple[int, int, int],
    user: User,
    group: Group | None,
    terminal: bool,
) -> Child:
    joining = -1 if group is None else group.joining()
    try:
        popen = subprocess.Popen(
            list(argv),
            executable=program,
            stdin=fds[0],
            stdout=fds[1],
            stderr=fds[2],
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            restore_signals=True,
            user=user.uid if user.switch else None,
            group=user.gid if user.switch else None,
            extra_groups=user.groups if user.switch else None,
            # Runs between fork and exec: the file was opened by root, so the user joins, too.
            preexec_fn=(  # noqa: PLW1509
                None if group is None and not terminal else lambda: _settle(joining, terminal)
            ),
        )
    except subprocess.SubprocessError as exc:
        raise OSError(
            errno.EAGAIN, "the command could not join its control group or take its terminal"
        ) from exc
    finally:
        if joining >= 0:
            os.close(joining)
    return Child(popen.pid, popen)


def _settle(group: int, terminal: bool) -> None:
    if group >= 0:
        os.write(group, b"0")
    if terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _why(exc: OSError, program: str, cwd: str, user: User) -> Problem:
    """Why a command was not started; what is wrong with its folder comes before its program."""
    if exc.errno in {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
        return Problem(
            "unavailable",
            f"nothing more can be started inside: {exc.strerror}",
            hint="end some of what runs there, or give the sandbox more memory",
        )
    try:
        if not stat.S_ISDIR(os.stat(cwd).st_mode):
            return Problem("file_not_directory", f"cwd {cwd} is not a directory")
    except OSError as missing:
        return of_errno(missing, f"cwd {cwd}")
    if exc.errno == errno.ENOEXEC:
        return _unfit("file_forbidden", f"{program} is in no format that can be executed", program)
    if exc.errno == errno.ENOENT and os.path.exists(os.path.join(cwd, program)):
        return _unfit("file_missing", f"the interpreter of {program} is missing", program)
    if exc.errno == errno.EACCES:
        return _unfit("file_forbidden", f"{program} may not be executed by {user.name}", program)
    named = of_errno(exc, program)
    return _unfit(named.code, named.message, program)


def _unfit(code: str, message: str, program: str, hint: str | None = None) -> Problem:
    """It is the program that is wrong, and not another file: the details say so."""
    return Problem(code, message, hint=hint, details={"path": program, "program": program})


_attributes = _Attributes()
