"""The home of one platform: its folders, its install id, and the lock that keeps it single."""

from __future__ import annotations

import fcntl
import os
import secrets
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtools.errors import Conflict, Forbidden
from runtools.platform.boot.people import Person
from runtools.platform.kit.config import Settings
from runtools.platform.kit.files import write_atomic

_ALPHABET = string.ascii_lowercase + string.digits


def prepare(settings: Settings, api_person: Person) -> str:
    """Make the home's folders with their owners and modes; returns the install id.

    Everybody may pass through the home (the VMMs reach their own folders by it), nobody may list it.

    Raises:
        Forbidden: the home cannot be made by the calling user.
    """
    try:
        _folder(settings.home, 0o711)
        _folder(settings.host_home, 0o711)
        _folder(settings.run_folder, 0o711)
        _folder(settings.log_folder, 0o700)
        for folder in (settings.api_home, settings.gateway_home):
            _folder(folder, 0o700)
            os.chown(folder, api_person.uid, api_person.gid)
            for file in folder.iterdir():
                os.chown(file, api_person.uid, api_person.gid, follow_symlinks=False)
    except PermissionError as exc:
        raise Forbidden(
            f"cannot make {exc.filename}: permission denied",
            hint="run as root or with sudo, or set RUNTOOLS_HOME to a folder of yours",
        ) from exc
    return install_id(settings)


def _folder(path: Path, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)


def install_id(settings: Settings) -> str:
    """Six letters that mark everything this platform owns on the machine; made once per home."""
    file = settings.home / "install-id"
    if not file.exists():
        fresh = secrets.choice(string.ascii_lowercase) + "".join(
            secrets.choice(_ALPHABET) for _ in range(5)
        )
        write_atomic(file, fresh.encode(), mode=0o644)
    return file.read_text().strip()


@contextmanager
def lock(file: Path, owner: str) -> Iterator[None]:
    """Hold the file for as long as this process lives; the kernel lets go when it dies.

    Raises:
        Conflict: another process holds it.
    """
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Conflict(
                f"{owner} of {file.parent.parent} is running already",
                hint="runtools status shows it, runtools down ends it",
            ) from exc
        # Over the former one, which gives no block back: there may be no other.
        os.pwrite(fd, f"{os.getpid():<10}".encode(), 0)
        yield
    finally:
        os.close(fd)


def lock_file(settings: Settings) -> Path:
    """What the running supervisor holds."""
    return settings.run_folder / "up.lock"


def holder(file: Path) -> int | None:
    """The pid of the process that holds the lock, or None when nobody does."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError:  # root's own, so that nobody else can lock it
        return _seen_to_hold(file)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(fd, 32, 0) or b"0") or None
    else:
        return None
    finally:
        os.close(fd)


def _seen_to_hold(file: Path) -> int | None:
    """The same for those who may not open it, from what the kernel tells everybody about locks."""
    inode = str(file.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fe:00:2622072 0 EOF
        if words[1] != "FLOCK" or words[3] != "WRITE" or words[5].rpartition(":")[2] != inode:
            continue
        # Device numbers are not told alike on every file system: who it is decides.
        if b"\0runtools.platform\0" in command_of(words[4]):
            return int(words[4])
    return None


def command_of(pid: str) -> bytes:
    """The words of a process, each with a zero byte behind it; empty: it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
