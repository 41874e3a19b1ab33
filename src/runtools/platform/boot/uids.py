"""The user ids of a home's virtual machines: a range that no other platform on the machine has.

A range is chosen once per home and kept in it, because files on the disk belong to its users. Which
home has which range is written where everybody on the machine finds it, for as long as the machine is
up; so two platforms that ran since its start never share one. A home that was copied shares the range
of the original: then the second of the two is refused.

    HOME/host/first-uid       the first id of the range
    /run/runtools/uids/<id>   the home whose range begins there
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtools.errors import Conflict, Unavailable
from runtools.platform.kit.config import Settings
from runtools.platform.kit.files import write_atomic

# Above every user that a distribution makes, below 2**31.
FLOOR = 0x4000_0000
SIZE = 0x1_0000
RANGES = 0x2000
CLAIMS = Path("/run/runtools/uids")

_FILE = "first-uid"


def claim(settings: Settings, install_id: str) -> int:
    """The first id of this home's range, which from here on is nobody else's; again gives the same.

    Raises:
        Conflict: another home has the range that this one was made with.
        Unavailable: every range is taken.
    """
    with _alone():
        first = kept(settings)
        if first is None:
            first = _free(settings, install_id)
            write_atomic(settings.host_home / _FILE, str(first).encode(), mode=0o644)
        elif (other := other_home(settings, first)) is not None:
            raise Conflict(
                f"the user ids from {first} on belong to the platform at {other}",
                hint=f"{settings.home} is a copy of it, or was made apart from it: use only one of "
                "them at a time, and restart the machine between",
            )
        write_atomic(CLAIMS / str(first), str(settings.home).encode(), mode=0o644, durable=False)
    return first


def kept(settings: Settings) -> int | None:
    """The first id of this home's range, where one was chosen."""
    try:
        return int((settings.host_home / _FILE).read_text())
    except FileNotFoundError:
        return None


def other_home(settings: Settings, first: int) -> Path | None:
    """Another home on this machine that has the range; one that is gone or has another does not count."""
    try:
        home = Path((CLAIMS / str(first)).read_text())
        if home == settings.home or int((home / "host" / _FILE).read_text()) != first:
            return None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return home


def _free(settings: Settings, install_id: str) -> int:
    """The first range that nobody has, looked for from a place of the install's own."""
    start = int.from_bytes(hashlib.sha256(install_id.encode()).digest()[:2], "big")
    for n in range(RANGES):
        first = FLOOR + (start + n) % RANGES * SIZE
        if other_home(settings, first) is None:
            return first
    raise Unavailable("every range of user ids is taken on this machine")


@contextmanager
def _alone() -> Iterator[None]:
    """Nobody else on this machine chooses meanwhile."""
    CLAIMS.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(CLAIMS / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
