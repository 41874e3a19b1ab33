"""Api processes say which master keys they have, so that none seals before all of them can open with it.

They may be on several machines, each with a ring of its own. A rekey announces its key; each process looks
for it and says whether it has it; and in the transaction that makes it the current one nobody lacks it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from runtools.errors import RunToolsError, WrongMasterKey
from runtools.platform.api.platform import Platform
from runtools.platform.api.vault import rules, store
from runtools.platform.api.vault.store import Holder
from runtools.platform.api.vault.vault import Vault
from runtools.platform.core.ids import new_id
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.db import Database, Transaction

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_SAID_EVERY = timedelta(seconds=5)
_ASK_SECONDS = 0.1
_LONGEST_SECONDS = rules.ALIVE.total_seconds() + 10
_FORGOTTEN = timedelta(days=1)


async def join(platform: Platform) -> Holder:
    """Be there, before anything is opened.

    Raises:
        WrongMasterKey: another key has become the current one, and it is not at hand.
    """
    name = f"process {os.getpid()} on {socket.gethostname()} (platform {platform.install_id})"
    return await joined(platform.db, platform.vault, name)


async def joined(db: Database, vault: Vault, name: str) -> Holder:
    """The same under a name."""
    return await db.write(_join, vault, Holder(new_id("prc"), name[:255], []))


async def stay(platform: Platform, holder: Holder) -> None:
    """Say so for ever, and look for each key that is to come."""
    while True:
        await platform.clock.sleep(_LOOK_SECONDS)
        try:
            holder = await say(platform.db, platform.vault, holder)
        except RunToolsError as error:
            log.debug("saying which master keys are at hand: %s", error)
        except Exception:
            # The edge of a loop that must not end.
            log.exception("saying which master keys are at hand")


async def say(db: Database, vault: Vault, holder: Holder) -> Holder:
    """One look for a key that is to come, and a word where there is news or it is time."""
    coming = await db.read(store.coming)
    is_time = await db.read(store.is_silent, holder.id, _SAID_EVERY)
    if (
        coming is not None
        and coming not in vault.at_hand
        and (is_time or coming != holder.looked_for)
    ):
        # A look may take as long as a program that gives the keys: it is there meanwhile.
        await db.write(store.hold, replace(holder, looked_for=None))
        try:
            await asyncio.to_thread(vault.look_for, coming)
        except RunToolsError as error:
            if holder.looked_for != coming:
                why = "it is not where the keys are" if isinstance(error, WrongMasterKey) else error
                log.warning("the master key %s is to seal next and not at hand: %s", coming, why)
    fresh = replace(holder, keys=vault.at_hand, looked_for=coming)
    if fresh == holder and not is_time:
        return holder
    await db.write(store.hold, fresh)
    return fresh


async def prepare(db: Database, vault: Vault, clock: Clock, told: Callable[[str], None]) -> None:
    """Wait until everybody who is there has the newest key of the ring, or has looked for it.

    Raises:
        Conflict: some have looked for it in vain, or not at all in that time; they alone are named.
    """
    key = await vault.announce(db, clock.now())
    last, waits = clock.monotonic() + _LONGEST_SECONDS, False
    while True:
        lacking = rules.lacking(await db.read(store.holding, rules.ALIVE), key.id)
        if not lacking:
            return
        # Who has not looked yet may have it at hand.
        if clock.monotonic() > last or all(one.looked_for == key.id for one in lacking):
            raise rules.unknown_to(lacking, key.id)
        if not waits:
            waits = True
            told(f"{key.id} is looked for by {'; '.join(one.name for one in lacking)}")
        await clock.sleep(_ASK_SECONDS)


def _join(conn: Transaction, vault: Vault, holder: Holder) -> Holder:
    # It stays the current one until the end: a rekey comes before this, or sees who has joined.
    key_id = store.current_id(conn)
    if key_id is not None:
        vault.look_for(key_id)
    store.forget_holders(conn, _FORGOTTEN)
    here = replace(holder, keys=vault.at_hand)
    store.hold(conn, here)
    return here
