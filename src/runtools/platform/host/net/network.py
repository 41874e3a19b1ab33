"""The network of sandboxes on this machine: a namespace for each, some kept ready.

A slot in reserve is whole but for its cable, which is pulled, and its resolver, which refuses. Handing
it out under a policy without rules plugs the cable in and admits questions: less than a millisecond. A
slot is never used twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from runtools.errors import CapacityExhausted, Unavailable
from runtools.platform.core.egress import Policy
from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.ports.network import Refused, Traffic, unheard, untold
from runtools.platform.host.net import ranges, slots
from runtools.platform.host.net.egress import Egress
from runtools.platform.host.net.enter import NAMESPACES
from runtools.platform.host.net.firewall import Firewall, taken
from runtools.platform.host.net.names import Names
from runtools.platform.host.net.resolver import Upstreams
from runtools.platform.host.net.rules import NO_LIMITS, Limits
from runtools.platform.kit import process

log = logging.getLogger(__name__)

# Held while a range of addresses is chosen, so that two installations never choose the same.
_CHOOSING = Path("/run/runtools-ranges.lock")
_ALONE_SECONDS = 30.0
_AGAIN_SECONDS = 0.02
_RESERVE = 4
# Relays of tests: beside all users that a distribution or an installation makes.
_RELAY_UID = 0x3FFF_0000
# Whoever was just given a network is about to start a machine: the reserve is filled up after that.
_PAUSE_SECONDS = 0.5


class NamespaceNetwork:
    """Slots of one installation."""

    def __init__(
        self,
        install_id: str,
        *,
        reserve: int = _RESERVE,
        upstreams: Upstreams | None = None,
        limits: Limits = NO_LIMITS,
        relay_uid: int = _RELAY_UID,
        sandboxes: int = ranges.SLOTS,
    ) -> None:
        """``relay_uid`` is the first of the `ranges.SLOTS` users as whom relays run; ``sandboxes`` is how

        many may run at once.
        """
        self._sandboxes = sandboxes
        self._limits = limits
        self._relay_uid = relay_uid
        self._names = Names(install_id)
        self._wanted = reserve
        self._upstreams = upstreams or Upstreams()
        self._up = asyncio.Lock()
        self._cables: IPv4Network | None = None
        self._firewall: Firewall | None = None
        self._served: dict[int, Egress] = {}
        self._logs: dict[int, Refused] = {}
        self._untold: Counter[int] = Counter()  # what was refused while nobody kept its log
        self._reserve: deque[Slot] = deque()
        self._used: set[int] = set()  # numbers in use or being made or unmade
        self._last = -1  # the number that was given out last
        self._filling: asyncio.Task[None] | None = None

    async def open(self, policy: Policy, refused: Refused = unheard) -> Slot:
        """One from the reserve, or a new one.

        Raises:
            Unavailable: the machine's own tools refuse to make one.
            CapacityExhausted: there is no address left for one.
        """
        try:
            cables = await self._ready()
            slot = self._reserve.popleft() if self._reserve else await self._make(cables)
        except (process.CommandFailed, OSError, TimeoutError) as exc:
            raise Unavailable(f"no network can be made: {exc}") from exc
        except ranges.NoRange as exc:
            raise CapacityExhausted(f"no network can be made: {exc}") from exc
        self._logs[slot.index] = refused
        try:
            await self._served[slot.index].admit(policy, refused)
        except BaseException:
            await self.close(slot)
            raise
        finally:
            self._refill(cables)
        return slot

    async def adopt(self, slot: Slot, policy: Policy, refused: Refused = unheard) -> None:
        """Serve a slot of before.

        Raises:
            Unavailable: it is not there any more, or its policy cannot be put in force.
        """
        await self._ready()
        if not (NAMESPACES / slot.namespace).exists():
            raise Unavailable(f"the network {slot.namespace} is gone")
        self._used.add(slot.index)
        if slot.index not in self._served:
            try:
                self._served[slot.index] = await self._serve(slot)
            except OSError as exc:
                raise Unavailable(f"the network {slot.namespace} cannot be served: {exc}") from exc
        await self._served[slot.index].adopt(policy, refused)
        self._logs[slot.index] = refused
        if more := self._untold.pop(slot.index, 0):
            refused(untold("host_full", more))

    async def change(self, slot: Slot, policy: Policy) -> None:
        """Put another policy in force.

        Raises:
            Unavailable: it cannot be put in force; the slot is shut then.
        """
        egress = self._served.get(slot.index)
        if egress is None:
            raise Unavailable(f"the network {slot.namespace} is not served")
        await egress.change(policy)

    async def close(self, slot: Slot) -> None:
        """Take a slot away."""
        if not slot.namespace:
            return
        egress = self._served.pop(slot.index, None)
        if egress is not None:
            egress.count()
            await egress.close()
        if self._firewall is not None:
            self._firewall.note()
        self._logs.pop(slot.index, None)
        await slots.unmake(self._names, slot.index)
        self._used.discard(slot.index)

    def traffic(self, slot: Slot) -> Traffic | None:
        """The kernel's counts of the cable's end on the host: its intake is what the sandbox sent."""
        counts = Path("/sys/class/net", self._names.veth(slot.index), "statistics")
        try:
            sent = int((counts / "rx_bytes").read_text())
            received = int((counts / "tx_bytes").read_text())
        except FileNotFoundError:
            return None
        return Traffic(received=received, sent=sent)

    async def reclaim(self, keep: Collection[Slot]) -> int:
        """Remove what a crash has left."""
        await self._ready()
        self._used |= {slot.index for slot in keep}
        lost = sorted(slots.found(self._names) - self._used)
        for index in lost:
            await slots.unmake(self._names, index)
        return len(lost)

    async def stop(self) -> None:
        """Go down in order. Slots in use stay, with the firewall; without any, all of it goes."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        while self._reserve:
            await self.close(self._reserve.popleft())
        for egress in self._served.values():
            await egress.close()
        self._served.clear()
        if self._firewall is not None:
            self._firewall.note()
            await (self._firewall.rest() if slots.found(self._names) else self._firewall.down())
            self._firewall = None

    def _refuse(self, cable: IPv4Address, times: int) -> None:
        """So many flows of one were too many for the host."""
        assert self._cables is not None  # noqa: S101 - chosen before the firewall
        index = ranges.index_of(self._cables, cable)
        if index in self._logs:
            self._logs[index](untold("host_full", times))
        else:
            self._untold[index] += times

    async def _serve(self, slot: Slot) -> Egress:
        uid = self._relay_uid + slot.index
        return await Egress.open(self._names, slot, uid, self._upstreams)

    async def _ready(self) -> IPv4Network:
        """Addresses chosen and firewall in force: once, and before anything else."""
        async with self._up:
            if self._firewall is None:
                async with _alone():
                    self._cables = await _choose(self._names)
                    firewall = Firewall(self._names, self._cables, self._sandboxes, self._refuse)
                    await firewall.up()
                self._firewall = firewall
            assert self._cables is not None  # noqa: S101 - chosen before the firewall
            return self._cables

    async def _make(self, cables: IPv4Network) -> Slot:
        # In turn: a number that was just given back is not soon somebody else's.
        index = ranges.next_free([*self._used, *slots.found(self._names)], self._last)
        self._last = index
        self._used.add(index)
        self._untold.pop(index, None)  # of one before
        try:
            slot = await slots.make(self._names, cables, index, self._limits)
            try:
                self._served[index] = await self._serve(slot)
            except BaseException:
                await slots.unmake(self._names, index)
                raise
        except BaseException:
            self._used.discard(index)
            raise
        return slot

    def _refill(self, cables: IPv4Network) -> None:
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill(cables), name="networks in reserve")

    async def _fill(self, cables: IPv4Network) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)
        while len(self._reserve) < self._wanted:
            try:
                self._reserve.append(await self._make(cables))
            except (process.CommandFailed, OSError, TimeoutError, ranges.NoRange) as exc:
                log.error("no network could be made in reserve: %s", exc)
                return


async def _choose(names: Names) -> IPv4Network:
    """The range that our cables have already, else one that nobody on the machine uses."""
    used = []
    for interface in await _listed("addr"):
        ours = names.index_of(interface["ifname"]) is not None
        for address in interface["addr_info"]:
            if ours and (mine := ranges.containing(address["local"])) is not None:
                return mine
            used.append(IPv4Network((address["local"], address["prefixlen"]), strict=False))
    routes = [route["dst"] for route in await _listed("route", "show", "table", "all")]
    used += [IPv4Network(route) for route in routes if route != "default"]
    return ranges.choose(names.install_id, [*used, *await taken()])


@contextlib.asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """Nobody else on this machine chooses meanwhile.

    The lock is asked for again and again rather than waited for in a thread: a thread whose waiter was
    cancelled gets it all the same, and keeps it.
    """
    fd = os.open(_CHOOSING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            async with asyncio.timeout(_ALONE_SECONDS):
                while not _locked(fd):
                    await asyncio.sleep(_AGAIN_SECONDS)
        except TimeoutError:
            raise Unavailable(
                f"another platform has held {_CHOOSING} for {_ALONE_SECONDS:.0f} s",
                hint=f"fuser {_CHOOSING} names the process",
            ) from None
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _listed(*words: str) -> list[dict[str, Any]]:
    done = await process.run(["ip", "-j", "-4", *words])
    found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    return found
