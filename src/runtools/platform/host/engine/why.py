"""Why an act is done: what the ledger says of it, and by what a repeat of it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runtools.sdk.shapes.sandboxes import Cause

PLATFORM: Final = "platform"
"""The actor (in the ledger) of what nobody asked for."""


@dataclass(frozen=True, slots=True)
class Why:
    """Why an act is done.

    Attributes:
        cause, actor: as the ledger says it.
        op: the id by which a repeat is known; empty for acts of the platform's own.
        what: what the op was used for, so that it is not used for something else.
    """

    cause: Cause
    actor: str
    op: str = ""
    what: str = ""
