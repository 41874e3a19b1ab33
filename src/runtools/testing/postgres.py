"""A private PostgreSQL server for one test session, and databases on it made in a moment."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psycopg
import pytest

_USER = "postgres"
_MEMORY = Path("/dev/shm")
_PREFIX = "rt-pg-"
_INITDB = ("-U", _USER, "-A", "trust", "-N", "-E", "UTF8")


def binaries() -> Path | None:
    """Where the server's programs lie, if it is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


# Parameters of a fixture: what cannot be tested here is skipped, and said to be.
ENGINES = (
    "sqlite",
    pytest.param(
        "postgresql",
        marks=pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed"),
    ),
)


class Cluster:
    """A running server, reached by a Unix socket only."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self._folder = folder
        self._server: subprocess.Popen[bytes] | None = None
        self._tools = tools
        self._numbers = itertools.count(1)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql://{_USER}@/{database}?host={self._folder}"

    def start(self) -> None:
        """Let it serve; it is a child that ends with us, even when we are killed."""
        self._server = _serve(self._tools, self._folder)

    def stop(self) -> None:
        """Let it end at once, whoever is connected; what was committed is there after a start."""
        assert self._server is not None
        self._server.send_signal(signal.SIGINT)
        self._server.wait(30)

    def create(self, template: str | None = None) -> str:
        """A new database, empty or a copy of another; returns its name."""
        name = f"test_{next(self._numbers)}"
        # By files: nothing of the copy needs to be in the log, which is four times as slow.
        self._do(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'} STRATEGY file_copy")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self._do(f"DROP DATABASE {name} WITH (FORCE)")

    def _do(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as conn:
            conn.execute(statement.encode())


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a server in a folder of its own; stop and remove it at the end."""
    tools = binaries()
    assert tools is not None, "PostgreSQL is not installed"
    place = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
    _clear(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    data = folder / "data"
    if os.getuid() == 0:
        shutil.chown(folder, _USER)
    held = _hold(folder)
    try:
        _as_postgres([str(tools / "initdb"), "-D", str(data), *_INITDB])
        made = Cluster(folder, tools)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        _remove(folder)
        held.close()


def _hold(folder: Path) -> IO[str]:
    """Keep the folder from being cleared for as long as the file is open. Locked, it gets its name."""
    new = folder / "lock.new"
    held = new.open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    new.rename(folder / "lock")
    return held


def _clear(place: Path) -> None:
    """Remove what sessions that were killed have left: it takes memory."""
    for lock in place.glob(f"{_PREFIX}*/lock"):
        with contextlib.suppress(OSError), lock.open() as mine:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.parent)


def _remove(folder: Path) -> None:
    """Remove a folder, by its lock at last: whoever is killed meanwhile leaves it to be found."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder / "data")
    shutil.rmtree(folder)


def _serve(tools: Path, folder: Path) -> subprocess.Popen[bytes]:
    who = ["--reuid", _USER, "--regid", _USER, "--clear-groups"] if os.getuid() == 0 else []
    # Nothing here outlives the session, so nothing has to survive a crash. What servers share lies in the
    # folder, too: else one that is killed would leave it in memory, where nobody knows whose it was.
    shared = "dynamic_shared_memory_type=mmap"
    options = ["listen_addresses=", "fsync=off", "max_connections=200", shared]
    words = [word for option in options for word in ("-c", option)]
    argv = ["setpriv", "--pdeathsig", "QUIT", *who, str(tools / "postgres")]
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [*argv, "-D", str(folder / "data"), "-k", str(folder), *words],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    deadline = time.monotonic() + 60
    ready = [str(tools / "pg_isready"), "-q", "-h", str(folder)]
    while subprocess.run(ready, check=False).returncode != 0:
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, "PostgreSQL did not come up"
        time.sleep(0.05)
    return server


def _as_postgres(argv: list[str]) -> None:
    """Its programs refuse to run as root."""
    ids = pwd.getpwnam(_USER) if os.getuid() == 0 else None
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        cwd="/",
        user=ids.pw_uid if ids else None,
        group=ids.pw_gid if ids else None,
        extra_groups=[] if ids else None,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        timeout=60,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]}: {done.stderr.decode(errors='replace')[-500:]}")
