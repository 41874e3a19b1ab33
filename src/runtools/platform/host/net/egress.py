"""What one slot reaches: puts its policy in force, remembers where names led, hears what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import get_args

from runtools.errors import Unavailable
from runtools.platform.core.egress import OPEN, Policy
from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.ports.network import Refusal, Refused, untold
from runtools.platform.host.net import netlink, nft, rules, slots
from runtools.platform.host.net.names import Names
from runtools.platform.host.net.netlink import Counters, Elements, Logged, PacketLog
from runtools.platform.host.net.relays import Relay, RelayLost
from runtools.platform.host.net.resolver import Desk, TooManyPins, Upstreams
from runtools.platform.host.net.rules import Known
from runtools.platform.kit import process
from runtools.sdk.shapes.egress import RefusalProtocol, RefusalReason

log = logging.getLogger(__name__)

# For how long what a name led to may be connected to: its time to live, within reason. Programs keep
# an address a little longer than they should, and some names change every second.
_LEAST_SECONDS = 60
_MOST_SECONDS = 3600
_ADDRESSES = 4096
# How long after a refused packet was told those are counted that were not.
_COUNT_SECONDS = 1.0
_NAMES_EACH = 16
# What is in force where nobody knows.
_UNKNOWN = Policy(deny=("unknown",))

_PROTOCOLS: dict[int, RefusalProtocol] = {1: "icmp", 6: "tcp", 17: "udp"}


class Egress:
    """One slot's way out, from `open` to `close`.

    A slot in reserve is under `OPEN` with its cable pulled and its resolver refusing: handing it out
    under that policy is a matter of plugging in.
    """

    def __init__(self, names: Names, slot: Slot, relay_uid: int) -> None:
        self.slot = slot
        self._names = names
        self._relay_uid = relay_uid
        self._loaded = OPEN
        self._policy = OPEN
        self._refused: Refused | None = None
        self._turn = asyncio.Lock()
        self._led: OrderedDict[IPv4Address, dict[str, float]] = OrderedDict()
        self._desk: Desk | None = None
        self._packets: PacketLog | None = None
        self._counters: Counters | None = None
        self._told: Counter[str] = Counter()
        self._counting: asyncio.TimerHandle | None = None
        self._pins: Elements | None = None
        self._relay: Relay | None = None

    @classmethod
    async def open(cls, names: Names, slot: Slot, relay_uid: int, upstreams: Upstreams) -> Egress:
        """Serve a slot that is there; its names are refused until `admit`.

        Raises:
            OSError: it is not there, or somebody serves it already.
        """
        made = cls(names, slot, relay_uid)
        try:
            made._desk = await Desk.open(slot.namespace, upstreams, made)
            made._packets = await PacketLog.open(slot.namespace, rules.LOG_GROUP, made._heard)
            made._counters = await Counters.open(slot.namespace, rules.TABLE)
        except BaseException:
            await made.close()
            raise
        return made

    async def close(self) -> None:
        """Serve it no more. Its rules stay as they are."""
        if self._relay is not None:
            await self._relay.close()
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None
        if self._packets is not None:
            self._packets.close()
        if self._counters is not None:
            self._counters.close()
        if self._pins is not None:
            self._pins.close()
        self._relay = self._packets = self._counters = self._pins = None
        if self._desk is not None:
            await self._desk.close()

    async def admit(self, policy: Policy, refused: Refused) -> None:
        """Hand it out under a policy.

        Raises:
            Unavailable: the policy cannot be put in force; the slot is shut.
        """
        self._refused = refused
        await self.change(policy)

    async def adopt(self, policy: Policy, refused: Refused) -> None:
        """Go on under a policy that may be in force already: then its flows and pins stay."""
        chain = ("list", "chain", "ip", rules.TABLE, rules.in_force(policy))
        if (await nft.ask(chain, self.slot.namespace, check=False)).code == 0:
            self._loaded = policy
        else:
            self._loaded = _UNKNOWN
        await self.admit(policy, refused)
        self.count()  # what was refused while nobody listened

    async def change(self, policy: Policy) -> None:
        """Put another policy in force. When it returns, what it does not admit is cut.

        Raises:
            Unavailable: it cannot be put in force; the slot is shut.
        """
        async with self._turn:
            try:
                await self._change(policy)
            except (process.CommandFailed, RelayLost, OSError, TimeoutError) as exc:
                with contextlib.suppress(OSError):
                    slots.plug(self._names, self.slot.index, up=False)
                self._loaded = _UNKNOWN
                raise Unavailable(
                    f"the egress policy of {self.slot.namespace} cannot be put in force: {exc}",
                    hint="nothing leaves the sandbox until a policy is; set it again",
                ) from exc

    async def _change(self, policy: Policy) -> None:
        assert self._desk is not None  # noqa: S101 - it is opened
        self._policy = policy
        self._desk.admit(policy)
        if not policy.internet:
            slots.plug(self._names, self.slot.index, up=False)
        if policy.by_name and self._pins is None:
            self._pins = await Elements.open(self.slot.namespace, rules.TABLE, rules.PINNED)
        # One that begins under this policy, with nothing brought to it under another, is not waited for.
        fresh = self._relay is None and self._loaded != _UNKNOWN
        if policy.by_name and self._relay is None:
            space, uid = self.slot.namespace, self._relay_uid
            self._relay = await Relay.open(space, uid, policy, self._led_to, self.refuse)
        if policy != self._loaded:
            text = rules.namespace(policy, list(self._known()))
            self.count()
            await nft.apply(text, self.slot.namespace)
            # After the rules: they bring it nothing more of what it cuts.
            if self._relay is not None and not fresh:
                await self._relay.tell(policy)
            self._loaded = policy
        if policy.internet:
            slots.plug(self._names, self.slot.index, up=True)

    # --- where names lead ---

    async def learn(self, name: str, addresses: list[IPv4Address], ttl: int) -> None:
        """Pin what a name led to, where names rule.

        Raises:
            TooManyPins: as many are pinned as one sandbox may have.
        """
        addresses = list(dict.fromkeys(addresses))  # an answer may name one twice, a set may not
        seconds = min(max(ttl, _LEAST_SECONDS), _MOST_SECONDS)
        until = asyncio.get_running_loop().time() + seconds
        async with self._turn:
            for address in addresses:
                led = self._led.setdefault(address, {})
                self._led.move_to_end(address)
                if led.pop(name, None) is not None or len(led) < _NAMES_EACH:
                    led[name] = until  # the last: a refusal there is told by it
            while len(self._led) > _ADDRESSES:
                self._led.popitem(last=False)
            if not self._policy.by_name or self._pins is None or not self._policy.admits_name(name):
                return
            try:
                await self._pins.put(addresses, seconds)
            except netlink.Full:
                raise TooManyPins from None

    def _known(self) -> Iterator[Known]:
        """Where admitted names have led, while new flows may go there and after that."""
        if not self._policy.by_name:
            return
        now = asyncio.get_running_loop().time()
        for address, led in self._led.items():
            ends = [until for name, until in led.items() if self._policy.admits_name(name)]
            if ends:
                yield Known(address, max(0, round(max(ends) - now)))

    def _led_to(self) -> Iterator[IPv4Address]:
        return (one.address for one in self._known())

    # --- what is refused ---

    def refuse(self, refusal: Refusal) -> None:
        """Pass a refusal on to whoever keeps the log."""
        if self._refused is not None:
            self._refused(refusal)

    def count(self) -> None:
        """Tell how many were refused beyond those that were told one by one."""
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None
        if self._packets is None or self._counters is None:
            return
        try:
            counts = self._counters.take()
        except OSError as exc:
            log.warning("refusals of %s are not counted: %s", self.slot.namespace, exc)
            return
        self._packets.drain()  # after the counts: then it has told whatever of them is to be told
        for reason in rules.COUNTED:
            more = counts.get(reason, 0) - self._told[reason]
            self._told[reason] = max(0, -more)
            if more > 0:
                self.refuse(untold(reason, more))

    def _heard(self, logged: Logged) -> None:
        refusal = _read(logged)
        if refusal is not None:
            self._told[refusal.reason] += 1
            if self._counting is None:
                loop = asyncio.get_running_loop()
                self._counting = loop.call_later(_COUNT_SECONDS, self.count)
            led = self._led.get(IPv4Address(str(refusal.address)))
            self.refuse(replace(refusal, name=next(reversed(led)) if led else None))


def _read(logged: Logged) -> Refusal | None:
    """The refusal that a logged packet tells of."""
    reasons: Iterable[RefusalReason] = get_args(RefusalReason)
    reason = next((one for one in reasons if one == logged.prefix), None)
    packet = logged.packet
    if reason is None or len(packet) < 20:
        return None
    start = (packet[0] & 0x0F) * 4
    protocol = _PROTOCOLS.get(packet[9], "other")
    port = None
    if protocol in ("tcp", "udp") and len(packet) >= start + 4:
        (port,) = struct.unpack_from(">H", packet, start + 2)
    return Refusal(reason, protocol, None, str(IPv4Address(packet[16:20])), port)
