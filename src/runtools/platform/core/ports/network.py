"""The network port: namespaces in which sandboxes reach what their policy admits and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from runtools.platform.core.egress import Policy
from runtools.platform.core.ports.driver import Slot
from runtools.sdk.shapes.egress import RefusalProtocol, RefusalReason


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a sandbox has exchanged with the outside since its slot was opened."""

    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that a sandbox wanted to reach and was not let.

    Attributes:
        reason: which rule it met.
        protocol: by what it was asked for.
        name: the name in question, where there is one.
        address, port: where it was to go, where that is known.
        times: how often; no part of what it is.
    """

    reason: RefusalReason
    protocol: RefusalProtocol
    name: str | None = None
    address: str | None = None
    port: int | None = None
    times: int = field(default=1, compare=False)


def untold(reason: RefusalReason, times: int) -> Refusal:
    """So many more that came too fast to be told one by one: only their reason is known."""
    return Refusal(reason, "other", times=times)


Refused = Callable[[Refusal], None]
"""Told of every refusal; must return at once."""


def unheard(_: Refusal) -> None:
    """For networks of which nobody keeps a log."""


class Network(Protocol):
    """Makes and takes back the network of a sandbox."""

    async def open(self, policy: Policy, refused: Refused = unheard) -> Slot:
        """A slot that nobody else has: namespace, tap, address, firewall, resolver.

        What it reaches is what the policy admits of the public addresses: never the host, private,
        link-local or metadata ranges or another sandbox. Under `SHUT` nothing leaves it, DNS included.
        """
        ...

    async def adopt(self, slot: Slot, policy: Policy, refused: Refused = unheard) -> None:
        """Go on serving (resolver included) a slot that was opened before a restart of the host."""
        ...

    async def change(self, slot: Slot, policy: Policy) -> None:
        """Put another policy in force. When it returns, flows that are no longer admitted are cut.

        Raises:
            Unavailable: it cannot be put in force; the slot is shut then.
        """
        ...

    async def close(self, slot: Slot) -> None:
        """Take the slot back. A slot that is gone is no error."""
        ...

    async def reclaim(self, keep: Collection[Slot]) -> int:
        """Remove all of this installation's slots but those kept; returns how many.

        The number of a kept one is given to nobody else until it was closed, whether anything of it is
        there or not: whoever keeps it may close it once more.
        """
        ...

    def traffic(self, slot: Slot) -> Traffic | None:
        """What went through its cable so far; None where nobody counts. Never blocks."""
        ...
