"""What every test of the api needs and takes long to make: made once in a process, then copied."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from functools import cache
from pathlib import Path

from fastapi import FastAPI

from runtools.platform.api.app import without_platform
from runtools.platform.api.schema import upgrade
from runtools.platform.kit.db import Database


@cache
def bare_app() -> FastAPI:
    """The routes alone, with their document: half a second's work that no test changes."""
    return without_platform()


def sqlite_url(folder: Path) -> str:
    """The URL of the SQLite database of a folder; a new one has the schema in it."""
    file = folder / "db" / "runtools.db"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_bytes(_migrated())
    return f"sqlite:///{file}"


@cache
def _migrated() -> bytes:
    """The file of a database that has been through every migration."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runtools.db"
        # In a thread of its own: the caller's has a loop that runs.
        making = threading.Thread(target=lambda: asyncio.run(_migrate(file)))
        making.start()
        making.join()
        return file.read_bytes()


async def _migrate(file: Path) -> None:
    db = Database(f"sqlite:///{file}")
    await upgrade(db)
    await db.close()
