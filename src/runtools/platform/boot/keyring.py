"""Where the master keys are kept: in the setting, in a file, or with a program that prints them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from runtools.errors import InvalidRequest, Unavailable
from runtools.platform.api import schema
from runtools.platform.api.vault import store
from runtools.platform.api.vault.service import prepare
from runtools.platform.api.vault.vault import Vault
from runtools.platform.kit import process
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.platform.kit.files import write_atomic
from runtools.platform.kit.sealing import MasterKey, keys_of

_COMMAND_SECONDS = 30.0


class Keyring:
    """The master keys of a platform, the newest first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        named = {
            "master_key": settings.master_key,
            "master_key_file": settings.master_key_file,
            "master_key_command": settings.master_key_command,
        }
        given = [name for name, value in named.items() if value]
        if len(given) > 1:
            raise InvalidRequest(
                f"the master key comes from several places: {', '.join(given)}",
                hint="set one of them",
            )
        self._source = given[0] if given else None
        self.file = settings.api_home / "master.key"

    @property
    def own(self) -> bool:
        """Whether the keys are in our own file, which we write."""
        return self._source is None

    def __call__(self) -> Sequence[MasterKey]:
        """The keys.

        Raises:
            InvalidRequest: what is there is no key.
            Unavailable: they cannot be read.
        """
        settings = self._settings
        if self._source == "master_key":
            return keys_of(settings.master_key, "setting master_key")
        if self._source == "master_key_command":
            return keys_of(self._said(), "what setting master_key_command prints")
        file = Path(settings.master_key_file) if self._source else self.file
        try:
            return keys_of(file.read_text(), str(file))
        except (OSError, UnicodeDecodeError) as exc:
            raise Unavailable(
                f"the master key cannot be read: {exc}",
                hint="without it nothing that is sealed can be opened: restore it from a backup",
            ) from None

    def _said(self) -> str:
        try:
            words = shlex.split(self._settings.master_key_command)
            return process.output(words, timeout=_COMMAND_SECONDS).decode()
        except (OSError, ValueError, TimeoutError, process.CommandFailed) as exc:
            # Not what it printed: that may be half a key.
            raise Unavailable(
                f"setting master_key_command: the program failed ({type(exc).__name__})",
                hint="run it by hand as the user that the api runs as",
            ) from None

    def write(self, keys: Sequence[MasterKey]) -> None:
        """Keep these in our own file from now on."""
        text = "".join(f"{key.text()}\n" for key in keys)
        write_atomic(self.file, text.encode(), mode=0o600)


async def open_vault(settings: Settings, db: Database, clock: Clock) -> Vault:
    """The vault of a platform whose schema is up to date; at the very first start its key is made.

    Raises:
        Unavailable, WrongMasterKey: the key is not there or not the right one; nothing was written.
    """
    ring = Keyring(settings)
    if ring.own and not ring.file.exists() and not await db.read(store.known):
        ring.write([MasterKey.new()])
    vault = Vault(ring)
    await vault.ready(db, clock.now())
    return vault


async def rekey(settings: Settings, db: Database, clock: Clock) -> int:
    """Change over to another master key and seal everything with it; safe to break off and repeat.

    Raises:
        Conflict: an api process that is there does not know the key; nothing is sealed with it.
    """
    ring = Keyring(settings)
    vault = await open_vault(settings, db, clock)
    known = await db.read(store.known)
    keys = ring()
    if keys[0].id == known[0].id and len(known) == 1:
        if not ring.own:
            raise InvalidRequest(
                f"the newest master key is the current one already: {keys[0].id}",
                hint="put a new key before it (newest first, the old one after it), then ask again",
            )
        ring.write([MasterKey.new(), *keys])
    try:
        await prepare(db, vault, clock, _tell)
        done = await vault.rekey(db, schema.SEALED, clock.now(), _tell)
    except BaseException:
        await db.write(store.give_up)  # nobody looks on for a key that none asks for
        raise
    if ring.own:
        ring.write([key for key in ring() if key.id == done])
        _tell("the old key is gone from the home; a backup made before needs its own")
    else:
        _tell("the old key can be taken away")
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
