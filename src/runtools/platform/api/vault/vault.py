"""Sealing and opening values, with the key that the database says is the current one.

Which key seals is written in the database, so that all processes change over at the same moment: one
that does not know the current key reads the ring anew before it seals anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from runtools.errors import Unavailable, WrongMasterKey
from runtools.platform.api.vault import rules, store
from runtools.platform.api.vault.store import SealedColumn
from runtools.platform.kit.db import Database, Transaction, lock_start
from runtools.platform.kit.sealing import MasterKey, Unreadable

_PROOF = "runtools"
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed value and the id of the key that opens it, named as their columns are."""

    key_id: str
    sealed: str


class Vault:
    """The master keys of one process.

    Args:
        ring: reads the keys from where they are kept, the newest first.
    """

    def __init__(self, ring: Callable[[], Sequence[MasterKey]]) -> None:
        self._ring = ring
        self._keys: dict[str, MasterKey] = {}
        self._read()

    def _read(self) -> Sequence[MasterKey]:
        keys = self._ring()
        # One that has been taken out of the ring may still be needed by a reader that is under way.
        self._keys.update({key.id: key for key in keys})
        return keys

    def _key(self, key_id: str) -> MasterKey:
        if key_id not in self._keys:
            self._read()
        if key_id not in self._keys:
            raise WrongMasterKey(
                f"the master key {key_id} is not at hand",
                hint="the database was sealed with it: give it back, or restore the whole home",
            )
        return self._keys[key_id]

    # --- values ---

    def seal(self, conn: Transaction, value: str, *place: str) -> Sealed:
        """Seal a value for its place with the current key, in the transaction that keeps it.

        Raises:
            WrongMasterKey: the current key is not at hand.
        """
        key_id = store.current_id(conn)
        if key_id is None:
            raise AssertionError("the vault was opened when the platform started")
        return Sealed(key_id, self._key(key_id).seal(value, *place))

    def open(self, sealed: Sealed, *place: str) -> str:
        """The value.

        Raises:
            WrongMasterKey: the key that sealed it is not at hand, or the value was changed or moved
                here from another place.
        """
        try:
            return self._key(sealed.key_id).open(sealed.sealed, *place)
        except Unreadable:
            raise WrongMasterKey(
                f"a sealed {place[0]} does not open with the master key {sealed.key_id}",
                hint="it was changed or moved in the database: restore it, or set it anew",
            ) from None

    # --- keys ---

    @property
    def newest(self) -> MasterKey:
        """The newest key of the ring, as it is now."""
        return self._read()[0]

    @property
    def at_hand(self) -> list[str]:
        """The ids of the keys that this process has."""
        return sorted(self._keys)

    def look_for(self, key_id: str) -> None:
        """Read the ring anew, if the key is not at hand.

        Raises:
            RunToolsError: the ring cannot be read, or the key is not in it.
        """
        self._key(key_id)

    async def announce(self, db: Database, now: datetime) -> MasterKey:
        """Say that the newest key of the ring is to seal next, so that others look for it."""
        newest = self.newest
        await db.write(store.announce, newest.id, newest.seal(_PROOF, newest.id), now)
        return newest

    async def ready(self, db: Database, now: datetime) -> None:
        """See to it that every key that something is sealed with is at hand; the first one is taken on.

        Nothing is written when there are any already.

        Raises:
            WrongMasterKey: one is not at hand, or is another than it says.
        """
        await db.write(_take_first, self.newest, now)
        for key in await db.read(store.known):
            self._prove(key)

    def _prove(self, known: store.Known) -> None:
        try:
            self._key(known.id).open(known.proof, known.id)
        except Unreadable:
            raise WrongMasterKey(
                f"the master key {known.id} does not open what it sealed",
                hint="the database or the key was changed: restore both from one backup",
            ) from None

    async def rekey(
        self,
        db: Database,
        columns: Sequence[SealedColumn],
        now: datetime,
        told: Callable[[str], None] = lambda _: None,
    ) -> str:
        """Make the newest key of the ring the current one and seal everything with it; returns its id.

        It can be broken off at any point and begun again: until the end both keys open what they
        sealed. Values are sealed anew in small transactions beside the platform's work.

        Raises:
            Conflict: a process that is there cannot open with that key; nothing was changed.
        """
        newest = self.newest
        await db.write(_switch, newest, now)
        told(f"{newest.id} seals from now on")

        def anew(key_id: str, sealed: str, place: Sequence[str]) -> str:
            return newest.seal(self.open(Sealed(key_id, sealed), *place), *place)

        for column in columns:
            count = 0
            while done := await db.write(store.reseal, column, newest.id, _BATCH, anew):
                count += done
                told(f"{column.table.name}: {count}")
        if not await db.write(store.retire, newest.id, columns):
            raise Unavailable("something is still sealed with an old key", hint="begin again")
        return newest.id


def _take_first(conn: Transaction, key: MasterKey, now: datetime) -> None:
    lock_start(conn)
    if not store.known(conn):
        store.make_current(conn, key.id, key.seal(_PROOF, key.id), now)


def _switch(conn: Transaction, key: MasterKey, now: datetime) -> None:
    lock_start(conn)  # one at a time: a key that another makes the current one meanwhile is seen
    store.make_current(conn, key.id, key.seal(_PROOF, key.id), now)
    # Who joins from here on waits for the rows just written, and needs this key: none slips in between.
    if lacking := rules.lacking(store.holding(conn, rules.ALIVE), key.id):
        raise rules.unknown_to(lacking, key.id)
