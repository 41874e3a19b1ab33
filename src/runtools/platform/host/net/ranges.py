"""The addresses of the cables between host and namespaces: a range that nobody on the machine uses.

Each slot has two addresses, the host's end and the namespace's, a /31. They are seen on the host only.
The ranges come from 198.18.0.0/15, which is set aside for benchmarks of networks: no LAN, no cloud, no
container engine and no VPN has its addresses there. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

POOL = IPv4Network("198.18.0.0/15")
SIZE = 21
SLOTS = 1 << (32 - SIZE - 1)


class NoRange(Exception):
    """Every range is in use on this machine."""


def choose(install_id: str, used: Iterable[IPv4Network]) -> IPv4Network:
    """A range that overlaps none in use; two installations begin to look at different places.

    Raises:
        NoRange: there is none.
    """
    taken = [net for net in used if net.prefixlen > 0]
    ranges = list(POOL.subnets(new_prefix=SIZE))
    first = int.from_bytes(hashlib.sha256(install_id.encode()).digest()[:4]) % len(ranges)
    for n in range(len(ranges)):
        candidate = ranges[(first + n) % len(ranges)]
        if not any(candidate.overlaps(net) for net in taken):
            return candidate
    raise NoRange(f"this machine has routes to all of {POOL}")


def ends(of: IPv4Network, index: int) -> tuple[IPv4Address, IPv4Address]:
    """The host's and the namespace's address of a slot."""
    return of[2 * index], of[2 * index + 1]


def index_of(of: IPv4Network, address: IPv4Address) -> int:
    """The slot that one end of a cable belongs to."""
    return (int(address) - int(of.network_address)) // 2


def containing(address: str) -> IPv4Network | None:
    """The range of ours that an address of a cable lies in."""
    found = IPv4Address(address)
    return IPv4Network((int(found) & -(1 << (32 - SIZE)), SIZE)) if found in POOL else None


def next_free(used: Sequence[int], last: int) -> int:
    """The first number of a slot after the last one that is not in use; after the highest comes 0.

    Raises:
        NoRange: all are.
    """
    taken = set(used)
    for n in range(1, SLOTS + 1):
        if (index := (last + n) % SLOTS) not in taken:
            return index
    raise NoRange(f"all {SLOTS} networks are in use")
