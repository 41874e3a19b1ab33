"""Making what a crash of ours survives survive a power loss too, off the path of the acts."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path

from runtools.errors import RunToolsError
from runtools.platform.core.states import State
from runtools.platform.host.disk import trees
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.places import JOURNAL, LEDGER
from runtools.platform.kit.clock import Backoff

log = logging.getLogger(__name__)


async def make(box: Actor) -> None:
    """Write a paused sandbox's state through to the disk, then say so, as durably.

    What the disk refuses is done again until it holds, or the sandbox has gone on.
    """
    paused_at, backoff = box.record.paused_at, Backoff(box.engine.clock)
    while True:
        try:
            await _make(box, paused_at)
        except OSError as exc:
            log.error("%s is not durable yet: %s", box.id, exc)
        except RunToolsError as exc:  # destroyed meanwhile, or the host goes down
            log.info("%s is not made durable any more: %s", box.id, exc)
            return
        else:
            return
        if box.engine.stopping or not _is_same(box, paused_at):
            return
        await backoff.wait()


async def _make(box: Actor, paused_at: object) -> None:
    await asyncio.to_thread(trees.sync, box.folder)
    await asyncio.to_thread(_sync_one, box.folder.parent)
    # First the state, then the journal that calls it durable, and only then is it said: after a power
    # loss, a state that the journal does not call durable is given up.
    if await box.perform(lambda: _journaled(box, paused_at)):
        await note(box)
        await box.perform(lambda: _say(box, paused_at))


async def note(box: Actor) -> None:
    """Write a sandbox's journal and ledger through to the disk, not its machine."""
    await asyncio.to_thread(
        _sync_some, [box.folder / JOURNAL, box.folder / LEDGER, box.folder, box.folder.parent]
    )


async def _journaled(box: Actor, paused_at: object) -> bool:
    if not _is_same(box, paused_at):
        return False
    box.books.note(replace(box.record, durable=True))
    return True


async def _say(box: Actor, paused_at: object) -> None:
    if _is_same(box, paused_at):
        box.books.report()


def _is_same(box: Actor, paused_at: object) -> bool:
    return box.state is State.PAUSED and box.record.paused_at == paused_at


def _sync_some(paths: list[Path]) -> None:
    for path in paths:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # removed meanwhile
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
