"""The network port: namespaces in which sandboxes reach the internet and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from runtools.platform.core.ports.driver import Slot


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a sandbox has exchanged with the outside since its slot was opened."""

    received: int
    sent: int


class Network(Protocol):
    """Makes and takes back the network of a sandbox."""

    async def open(self, internet: bool) -> Slot:
        """A slot that nobody else has: namespace, tap, address, firewall, resolver.

        With ``internet`` false nothing leaves it, DNS included. With it true it reaches public
        addresses only: never the host, private, link-local or metadata ranges or another sandbox.
        """
        ...

    async def adopt(self, slot: Slot, internet: bool) -> None:
        """Go on serving (resolver included) a slot that was opened before a restart of the host."""
        ...

    async def close(self, slot: Slot) -> None:
        """Take the slot back. A slot that is gone is no error."""
        ...

    async def reclaim(self, keep: Collection[Slot]) -> int:
        """Remove all of this installation's slots but those kept; returns how many."""
        ...

    def traffic(self, slot: Slot) -> Traffic | None:
        """What went through its cable so far; None where nobody counts. Never blocks."""
        ...
