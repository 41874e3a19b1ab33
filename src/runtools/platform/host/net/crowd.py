"""What all sandboxes of a host take together: the room beyond their shares, and who is refused it.

The kernel refuses by itself (`cables`). Here it is told every few seconds that there is room, and asked
every second how many it has refused, of whom.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from runtools.platform.host.net import cables, nft
from runtools.platform.host.net.names import Names
from runtools.platform.host.net.netlink import Tally
from runtools.platform.kit.process import CommandFailed

log = logging.getLogger(__name__)

SECONDS = 1.0
_ROOM_SECONDS = 60
# What is full has room again once only so many parts of eight are taken: else it would be full and not full
# in turn, each second, as long as somebody fills it.
_EMPTIED = 7
_AGAIN_SECONDS = 20.0

_TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_max")
_TRACKED_USUALLY = 65_536
_NOW = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_TCP_PAGES = Path("/proc/sys/net/ipv4/tcp_mem")
_SOCKETS = Path("/proc/net/sockstat")

Told = Callable[[IPv4Address, int], None]
"""Of whose cable how many more were refused."""


class Crowd:
    """The look at one installation's table."""

    def __init__(self, names: Names, told: Told) -> None:
        self._names = names
        self._told = told
        self._tally = Tally(names.table, cables.OVER)
        self._most = 0
        self._said = 0.0  # when the kernel was told last that there is room; 0: that there is none

    def begin(self, flows: cables.Pace) -> None:
        """A table was loaded, which knows of no room."""
        self._most, self._said = flows.room, 0.0

    def note(self) -> None:
        """Tell how many were refused since it was told last."""
        try:
            counts = self._tally.take()
        except FileNotFoundError:
            return  # there is no table: it is about to be loaded, or somebody took it away
        except OSError as exc:
            log.warning("what is refused for the sake of all is not counted: %s", exc)
            return
        for address, count in counts.items():
            self._told(address, count)

    async def look(self) -> None:
        """Tell the kernel whether there is room, where it does not know."""
        is_there = has_room(self._most, had=bool(self._said))
        now = asyncio.get_running_loop().time()
        fresh = now - self._said < _AGAIN_SECONDS
        if is_there == bool(self._said) and (fresh or not is_there):
            return
        try:
            await nft.apply(cables.room(self._names, _ROOM_SECONDS if is_there else 0))
        except CommandFailed as exc:
            log.warning("the room for connections of sandboxes is not told: %s", exc)
            return
        self._said = now if is_there else 0.0
        if not is_there:
            log.warning("connections fill the host: sandboxes have their shares of them alone")

    def close(self) -> None:
        """Look no more."""
        self._tally.close()


def tracked() -> int:
    """How many flows this machine remembers at most."""
    try:
        return int(_TRACKED.read_text())
    except FileNotFoundError:  # it has remembered none yet
        return _TRACKED_USUALLY


def has_room(most: int, *, had: bool) -> bool:
    """Whether fewer flows are remembered than that, and TCP's memory does not run short.

    Where there was none a moment ago, it takes clearly less of both.
    """
    try:
        now = int(_NOW.read_text())
    except FileNotFoundError:
        now = 0
    found = re.search(r"^TCP:.* mem (\d+)", _SOCKETS.read_text(), re.MULTILINE)
    pages = int(found[1]) if found else 0
    enough = int(_TCP_PAGES.read_text().split()[0])
    return all(
        taken < (limit if had else limit * _EMPTIED // 8)
        for taken, limit in ((now, most), (pages, enough))
    )
