"""Who must have a master key before anything is sealed with it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from runtools.errors import Conflict
from runtools.platform.api.vault.store import Holder

ALIVE = timedelta(seconds=60)
"""One that has said nothing for so long has ended without a word: a look for a key takes less."""


def lacking(there: Iterable[Holder], key_id: str) -> list[Holder]:
    """Those who could not open what is sealed with the key."""
    return [one for one in there if key_id not in one.keys]


def unknown_to(holders: Iterable[Holder], key_id: str) -> Conflict:
    """The refusal to seal with a key that not all have."""
    names = [one.name for one in holders]
    return Conflict(
        f"the master key {key_id} is not known to {'; '.join(names)}",
        hint="put it before the old one there, too, and rekey again. A file or a program is asked anew by"
        " itself; where it is the setting master_key, start that platform anew with both. One that was"
        f" killed is counted for {ALIVE.total_seconds():.0f} s",
        details={"key": key_id, "unknownTo": names},
    )
