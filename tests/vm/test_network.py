"""Networks of sandboxes, with namespaces standing in for the internet and a socket for the guest.

``world`` is a machine outside with a public address and a private one; the guest's end of a slot's tap
is played by a few lines of Ethernet, so that frames can be sent that no kernel would send.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import select
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import pytest

from runtools.errors import Unavailable
from runtools.platform.core.egress import OPEN, SHUT, policy
from runtools.platform.core.ports.driver import Slot
from runtools.platform.core.ports.network import Refusal, untold
from runtools.platform.host.net import cables, crowd, firewall, netlink, nft, rules, slots, wire
from runtools.platform.host.net.enter import NAMESPACES, inside
from runtools.platform.host.net.names import Names
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.platform.host.net.resolver import Upstreams
from runtools.platform.host.net.rules import NO_LIMITS, Limits
from runtools.platform.host.net.taps import open_tap

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

T = TypeVar("T")

PUBLIC = "203.0.113.1"
SECOND = "203.0.113.2"
PRIVATE = "10.99.7.1"
PORT = 8080
_SECONDS = 10.0
_ETH_P_ALL = 3
_QUIET = 0.4  # how long nothing must come before it counts as nothing


@pytest.fixture(scope="session", autouse=True)
def platform() -> None:
    """None is needed here: the network stands alone."""


def sh(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


# --- a guest made of frames ---


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ipv4(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    head = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0),
        *(socket.inet_aton(source), socket.inet_aton(target)),
    )
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(target: str, port: int, data: bytes, source: str = rules.GUEST) -> bytes:
    return ipv4(source, target, 17, struct.pack(">HHHH", 4444, port, 8 + len(data), 0) + data)


def ping(target: str) -> bytes:
    message = struct.pack(">BBHHH", 8, 0, 0, 1, 1)
    message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
    return ipv4(rules.GUEST, target, 1, message)


def syn(target: str, port: int, source: str = rules.GUEST) -> bytes:
    return tcp(target, port, 0x02, 1, source=source)


def tcp(
    target: str, port: int, flags: int, number: int, ack: int = 0, source: str = rules.GUEST
) -> bytes:
    segment = struct.pack(">HHIIBBHHH", 4445, port, number, ack, 5 << 4, flags, 64240, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target)
    pseudo += struct.pack(">BBH", 0, 6, len(segment))
    segment = segment[:16] + struct.pack(">H", checksum(pseudo + segment)) + segment[18:]
    return ipv4(source, target, 6, segment)


@dataclass
class FakeGuest:
    """The guest's end of a slot's tap."""

    tap: int

    def send(self, packet: bytes, *, source: str = rules.GUEST_MAC, kind: int = 0x0800) -> None:
        frame = mac(rules.GATEWAY_MAC) + mac(source) + struct.pack(">H", kind) + packet
        os.write(self.tap, bytes(10) + frame)

    def received(self, wanted: Callable[[bytes], bool], within: float = _SECONDS) -> bytes | None:
        """The first IPv4 packet that is wanted, or None when none came in time."""
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.tap], [], [], left)[0]:
                frame = os.read(self.tap, 65536)[10:]
                if frame[12:14] == b"\x08\x00" and wanted(frame[14:]):
                    return frame[14:]
        return None

    def hears_arp_for(self, address: str) -> list[str]:
        """Who answers questions of this address, until nobody does any more."""
        answers = []
        while select.select([self.tap], [], [], _QUIET)[0]:
            frame = os.read(self.tap, 65536)[10:]
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":
                assert frame[38:42] == socket.inet_aton(address)
                answers.append(socket.inet_ntoa(frame[28:32]))
        return answers

    def asks(self, packet: bytes, wanted: Callable[[bytes], bool]) -> bytes | None:
        """Send until what is wanted comes: the kernel takes a moment to see that a tap is in use."""
        for _ in range(int(_SECONDS / _QUIET)):
            self.send(packet)
            if answer := self.received(wanted, _QUIET):
                return answer
        return None


def is_syn_ack(packet: bytes) -> bool:
    return packet[9] == 6 and packet[33] & 0x12 == 0x12


def is_reset(packet: bytes) -> bool:
    return packet[9] == 6 and bool(packet[33] & 0x04)


def is_refused(protocol: int) -> Callable[[bytes], bool]:
    """What a packet of that protocol is answered with that may not go where it was to go."""
    return lambda packet: (
        packet[9] == 1 and packet[20:22] == b"\x03\x0d" and packet[28 + 9] == protocol
    )


def is_udp_from(port: int) -> Callable[[bytes], bool]:
    return lambda packet: packet[9] == 17 and packet[20:22] == struct.pack(">H", port)


def is_pong(packet: bytes) -> bool:
    return packet[9] == 1 and packet[20] == 0


def is_anything(_: bytes) -> bool:
    return True


# --- the world outside ---


@dataclass
class World:
    """A namespace that has addresses outside, and what came to it from this machine."""

    namespace: str
    cable: str

    def do(self, act: Callable[[], T]) -> T:
        return asyncio.run(inside(self.namespace, act))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Reached over a cable as a router is: it owns a public and a private address behind it."""
    tag = secrets.token_hex(2)
    space, cable = f"rtw-{tag}", f"rtw{tag}"
    sh("ip", "netns", "add", space)
    try:
        sh("ip", "link", "add", cable, "type", "veth", "peer", "name", "net0", "netns", space)
        sh("ip", "link", "set", cable, "addrgenmode", "none")  # no word of its own
        sh("ip", "-n", space, "link", "set", "net0", "addrgenmode", "none")
        for device, own in ((cable, "192.88.98.1/30"),):
            sh("ip", "addr", "add", own, "dev", device)
            sh("ip", "link", "set", device, "up")
        for own in ("192.88.98.2/30", f"{PUBLIC}/32", f"{SECOND}/32", f"{PRIVATE}/32"):
            sh("ip", "-n", space, "addr", "add", own, "dev", "net0")
        sh("ip", "-n", space, "link", "set", "net0", "up")
        sh("ip", "-n", space, "link", "set", "lo", "up")
        sh("ip", "-n", space, "route", "add", "default", "via", "192.88.98.1")
        for there in (PUBLIC, SECOND, PRIVATE):
            sh("ip", "route", "add", f"{there}/32", "via", "192.88.98.2", "dev", cable)
        yield World(space, cable)
    finally:
        sh("ip", "link", "del", cable)
        sh("ip", "netns", "del", space)


@pytest.fixture
def server(world: World) -> Iterator[socket.socket]:
    """Listens on every address of the world."""
    with world.do(lambda: _listening("0.0.0.0")) as sock:
        yield sock


def _listening(address: str) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, PORT))
    sock.listen(16)
    sock.settimeout(_SECONDS)
    return sock


class Nameserver(asyncio.DatagramProtocol):
    """Answers every query, with an address if it knows one, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.leads_to: dict[str, str] = {}
        self.silent = False
        self.times = 1  # how often it names an address in one answer

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        if self.silent:
            return
        address = self.leads_to.get(wire.name(data) or "")
        record = b""
        if address is not None:
            record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(address)
        counts = struct.pack(">HHHH", 1, self.times if record else 0, 0, 0)
        record *= self.times
        self.transport.sendto(data[:2] + b"\x81\x80" + counts + data[12:] + record, addr)


@pytest.fixture
async def nameserver(world: World) -> AsyncIterator[Nameserver]:
    """On the world's private address, where only the host may ask it."""

    def bound() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind((PRIVATE, 53))
        return sock

    sock = await inside(world.namespace, bound)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Nameserver, sock=sock)
    yield protocol
    transport.close()


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[NamespaceNetwork]:
    (tmp_path / "resolv.conf").write_text(f"nameserver {PRIVATE}\n")
    made = new_network(Upstreams(tmp_path / "resolv.conf"))
    yield made
    await gone(made)


async def gone(network: NamespaceNetwork) -> None:
    """Take everything of an installation away, whatever a test has left."""
    await network.stop()
    await asyncio.sleep(0)
    heir = NamespaceNetwork(network._names.install_id, reserve=0)
    await heir.reclaim([])
    await heir.stop()


def new_network(
    upstreams: Upstreams | None = None,
    reserve: int = 0,
    limits: Limits = NO_LIMITS,
    sandboxes: int = 8,
) -> NamespaceNetwork:
    install_id = f"n{secrets.token_hex(3)[:5]}"
    return NamespaceNetwork(
        install_id, reserve=reserve, upstreams=upstreams, limits=limits, sandboxes=sandboxes
    )


@pytest.fixture
async def guests(network: NamespaceNetwork) -> AsyncIterator[Callable[[Slot], object]]:
    taps: list[int] = []

    async def attach(slot: Slot) -> FakeGuest:
        taps.append(await inside(slot.namespace, lambda: open_tap(slot.tap)))
        guest = FakeGuest(taps[-1])
        # Only when answers come is their absence worth anything.
        assert await waits(lambda: guest.asks(ping(rules.GATEWAY), is_pong))
        return guest

    yield attach
    for tap in taps:
        os.close(tap)


def query(name: str = "example.org", ident: int = 77) -> bytes:
    labels = b"".join(bytes([len(word)]) + word.encode() for word in name.split("."))
    return struct.pack(">HHHHHH", ident, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


async def waits(act: Callable[[], T]) -> T:
    return await asyncio.to_thread(act)


CLOSED = (
    *("10.1.2.3", "172.16.0.1", "172.31.255.254", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "168.63.129.16", "127.0.0.1", "198.18.0.1", "192.0.2.1"),
    *("224.0.0.251", "255.255.255.255", "0.0.0.0"),
)


class TestWhatIsReached:
    async def test_a_public_address_is(self, network, world, server, guests):
        guest = await guests(await network.open(OPEN))
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))

    async def test_private_addresses_are_not(self, network, world, server, guests):
        guest = await guests(await network.open(OPEN))
        refusal = await waits(lambda: guest.asks(syn(PRIVATE, PORT), is_anything))
        assert refusal is not None
        assert refusal[9] == 1  # ICMP: administratively prohibited, at once
        assert refusal[20:22] == b"\x03\x0d"

    async def test_nothing_goes_to_closed_ranges(self, network, guests):
        slot = await network.open(OPEN)
        guest = await guests(slot)
        with await inside(slot.namespace, lambda: listening_in("out")) as cable:
            for address in CLOSED:
                guest.send(udp(address, 9, b"hello"))
                guest.send(syn(address, 80))
            assert await waits(lambda: heard(cable)) == []
            guest.send(udp(PUBLIC, 9, b"hello"))  # and what may go goes
            assert len(await waits(lambda: heard(cable, most=1))) == 1

    async def test_the_host_is_not(self, network, world, guests, server):
        """Neither at its end of the cable nor at any other address, public ones included."""
        slot = await network.open(OPEN)
        guest = await guests(slot)
        sh("ip", "addr", "add", "203.0.113.200/32", "dev", "lo")
        try:
            with _listening("0.0.0.0"):
                for address in ("203.0.113.200", "192.88.98.1", host_end(slot)):
                    guest.send(syn(address, PORT))
                    assert not await waits(lambda: guest.received(is_syn_ack, _QUIET))
        finally:
            sh("ip", "addr", "del", "203.0.113.200/32", "dev", "lo")

    async def test_a_neighbour_is_not(self, network, guests):
        one, other = [await network.open(OPEN) for _ in range(2)]
        guest, neighbour = await guests(one), await guests(other)
        names = Names(one.namespace.split("-")[1])
        sh("nft", "flush", "set", "inet", names.table, "closed")
        sh("ip", "netns", "exec", one.namespace, "nft", "flush", "set", "ip", "sandbox", "closed")
        guest.send(syn(namespace_end(other), 7709))
        guest.send(syn(rules.GUEST, 7709))
        assert not await waits(lambda: neighbour.received(is_anything, _QUIET))

    async def test_the_gateway_offers_the_resolver_alone(self, network, guests):
        log = Log()
        slot = await network.open(OPEN, log.append)
        guest = await guests(slot)

        def listening() -> socket.socket:
            sock = socket.socket()
            sock.bind((rules.GATEWAY, 22))
            sock.listen()
            return sock

        with await inside(slot.namespace, listening):
            for packet in (syn(rules.GATEWAY, 22), udp(rules.GATEWAY, 123, b"x")):
                refused = is_refused(packet[9])
                assert await waits(lambda p=packet, r=refused: guest.asks(p, r)), "at once"
            assert await waits(lambda: guest.asks(syn(rules.GATEWAY, 53), is_syn_ack))
        await until(lambda: log.reasons() >= {("closed_range", "tcp"), ("closed_range", "udp")})
        guest.send(tcp(rules.GATEWAY, 7000, 0x11, 2, 3))  # of a connection that a clone remembers
        guest.send(udp(rules.GATEWAY, 7001, b"x"))
        await until(lambda: 7001 in {one.port for one in log})
        assert 7000 not in {one.port for one in log}

    async def test_nothing_outside_begins_to_speak_to_it(self, network, world, guests):
        slot = await network.open(OPEN)
        guest = await guests(slot)
        sh("ip", "-n", world.namespace, "route", "add", "198.18.0.0/15", "via", "192.88.98.1")
        try:
            with await inside(world.namespace, datagrams) as sock:
                sock.sendto(b"knock", (namespace_end(slot), 7709))
                assert not await waits(lambda: guest.received(is_anything, _QUIET))
        finally:
            sh("ip", "-n", world.namespace, "route", "del", "198.18.0.0/15")


# A neighbour advertisement: "2001:db8::1 is at my MAC".
NEIGHBOUR = bytes.fromhex(
    "6000000000203aff20010db8000000000000000000000001ff020000000000000000000000000001"
    "88000000a000000020010db80000000000000000000000010201525400123456"
)


def arp(operation: int, mac_address: str, address: str, target: str = rules.GATEWAY) -> bytes:
    said = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + mac(mac_address)
    return said + socket.inet_aton(address) + bytes(6) + socket.inet_aton(target)


FORGED = {
    "neighbour's address": (udp(PUBLIC, 9, b"x", source="10.0.2.77"), rules.GUEST_MAC, 0x0800),
    "foreign address": (udp(PUBLIC, 9, b"x", source="8.8.8.8"), rules.GUEST_MAC, 0x0800),
    "foreign MAC": (udp(PUBLIC, 9, b"x"), "52:54:00:aa:bb:cc", 0x0800),
    "IPv6": (bytes.fromhex("6000000000083aff") + bytes(40), rules.GUEST_MAC, 0x86DD),
    "ND": (NEIGHBOUR, rules.GUEST_MAC, 0x86DD),
    "VLAN": (b"\x00\x01\x08\x00" + udp(PUBLIC, 9, b"x"), rules.GUEST_MAC, 0x8100),
    "empty VLAN": (b"\x00\x00\x08\x00" + udp(PUBLIC, 9, b"x"), rules.GUEST_MAC, 0x8100),
    "VLAN of a provider": (b"\x00\x00\x08\x00" + udp(PUBLIC, 9, b"x"), rules.GUEST_MAC, 0x88A8),
}


class TestForgery:
    """Frames that are not the guest's own never leave the tap."""

    async def test_is_dropped(self, network, world, guests):
        slot = await network.open(OPEN)
        guest = await guests(slot)
        with await inside(slot.namespace, lambda: listening_in("out")) as cable:
            for what, (packet, source, kind) in FORGED.items():
                guest.send(packet, source=source, kind=kind)
                assert await waits(lambda: heard(cable)) == [], what
            guest.send(udp(PUBLIC, 9, b"mine"))
            assert len(await waits(lambda: heard(cable, most=1))) == 1

    @pytest.mark.parametrize(
        "said",
        [
            arp(2, rules.GUEST_MAC, "10.0.2.77"),
            arp(2, rules.GUEST_MAC, rules.GATEWAY),
            arp(2, "52:54:00:aa:bb:cc", rules.GUEST),
            arp(1, rules.GUEST_MAC, "10.0.2.77"),
        ],
        ids=["for a neighbour", "for the gateway", "by another MAC", "asked for a neighbour"],
    )
    async def test_of_arp_is_not_believed(self, network, guests, said):
        slot = await network.open(OPEN)
        guest = await guests(slot)
        before = sh("ip", "-n", slot.namespace, "neigh", "show", "dev", "tap0")
        guest.send(said, kind=0x0806)
        guest.send(arp(1, rules.GUEST_MAC, rules.GUEST), kind=0x0806)  # its own is answered
        assert await waits(lambda: guest.hears_arp_for(rules.GUEST)) == [rules.GATEWAY]
        after = sh("ip", "-n", slot.namespace, "neigh", "show", "dev", "tap0")
        assert set(after.split()) <= {*before.split(), "REACHABLE", "STALE", "PERMANENT"}


class TestWithoutInternet:
    async def test_not_one_packet_leaves(self, network, world, server, nameserver, guests):
        """Seen on the cable of the sandbox, at its inner end, and on the way to the world."""
        slot = await network.open(SHUT)
        guest = await guests(slot)
        veth = Names(slot.namespace.split("-")[1]).veth(slot.index)
        with (
            listening_in(world.cable) as outside,
            await inside(slot.namespace, lambda: listening_in("out")) as cable,
        ):
            for protocol in range(256):
                guest.send(ipv4(rules.GUEST, PUBLIC, protocol, bytes(16)))
            guest.send(syn(PUBLIC, PORT))
            guest.send(ping(PUBLIC))
            guest.send(udp(PUBLIC, 53, query()))
            guest.send(udp(rules.GATEWAY, 53, query()))
            assert await waits(lambda: everything_heard(outside)) == []
            assert await waits(lambda: everything_heard(cable)) == []
        assert Path(f"/sys/class/net/{veth}/statistics/rx_bytes").read_text() == "0\n"
        assert nameserver.asked == []

    async def test_names_are_refused(self, network, nameserver, guests):
        guest = await guests(await network.open(SHUT))
        answer = await waits(lambda: guest.asks(udp(rules.GATEWAY, 53, query()), is_udp_from(53)))
        assert answer is not None
        assert answer[28:30] == struct.pack(">H", 77)
        assert answer[31] & 0x0F == 5
        assert nameserver.asked == []

    async def test_an_open_slot_can_be_closed_and_opened(self, network, world, server, guests):
        slot = await network.open(SHUT)
        guest = await guests(slot)
        await network.change(slot, OPEN)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))


class TestResolver:
    async def test_asks_the_hosts_own_nameserver(self, network, nameserver, guests):
        guest = await guests(await network.open(OPEN))
        answer = await waits(
            lambda: guest.asks(udp(rules.GATEWAY, 53, query(ident=4711)), is_udp_from(53))
        )
        assert answer is not None
        assert answer[28:30] == struct.pack(">H", 4711)
        assert answer[31] & 0x0F == 0
        assert nameserver.asked[0][2:] == query()[2:]

    async def test_ids_are_its_own(self, network, nameserver, guests):
        guest = await guests(await network.open(OPEN))
        for _ in range(8):
            assert await waits(
                lambda: guest.asks(udp(rules.GATEWAY, 53, query(ident=1)), is_udp_from(53))
            )
        assert len({asked[:2] for asked in nameserver.asked}) > 4

    async def test_says_when_nobody_answers(self, network, nameserver, guests, monkeypatch):
        monkeypatch.setattr("runtools.platform.host.net.resolver._ANSWER_SECONDS", 0.1)
        nameserver.silent = True
        guest = await guests(await network.open(OPEN))
        answer = await waits(lambda: guest.asks(udp(rules.GATEWAY, 53, query()), is_udp_from(53)))
        assert answer is not None
        assert answer[31] & 0x0F == 2

    async def test_is_not_impressed_by_garbage(self, network, nameserver, guests):
        guest = await guests(await network.open(OPEN))
        for data in (b"", b"x", bytes(12), b"\xff" * 600, query()[:-3], query() * 200):
            guest.send(udp(rules.GATEWAY, 53, data[:1400]))
        guest.send(udp(rules.GATEWAY, 53, query(ident=99)))
        mine = struct.pack(">H", 99)
        assert await waits(lambda: guest.received(lambda got: got[28:30] == mine))

    async def test_a_flood_is_bounded(self, network, nameserver, guests):
        guest = await guests(await network.open(OPEN))
        for n in range(1000):
            guest.send(udp(rules.GATEWAY, 53, query(ident=n)))
        await waits(lambda: heard_last(guest))
        assert len(nameserver.asked) < 500


@pytest.fixture
async def names(world: World, nameserver: Nameserver) -> Nameserver:
    """The nameserver, knowing a few."""
    nameserver.leads_to = {
        "good.example.org": PUBLIC,
        "other.example.org": PUBLIC,
        "second.example.org": SECOND,
        "rebound.example.org": PRIVATE,
    }
    return nameserver


class Log(list[Refusal]):
    """What was refused, as a network tells it."""

    def reasons(self) -> set[tuple[str, str]]:
        return {(one.reason, one.protocol) for one in self}


@dataclass
class KernelGuest:
    """A guest with a kernel of its own, behind a tap that two threads carry frames to and from."""

    namespace: str

    def do(self, act: Callable[[], T]) -> Any:
        return asyncio.to_thread(lambda: asyncio.run(inside(self.namespace, act)))


@pytest.fixture
async def kernels(network: NamespaceNetwork) -> AsyncIterator[Callable[[Slot], object]]:
    """Namespaces with a tap of their own; a pump carries frames between it and the slot's tap."""
    spaces: list[str] = []
    stops: list[Callable[[], None]] = []

    async def attach(slot: Slot) -> KernelGuest:
        space = f"rtg-{secrets.token_hex(2)}"
        sh("ip", "netns", "add", space)
        spaces.append(space)
        for words in (
            "tuntap add eth0 mode tap vnet_hdr",
            f"link set eth0 address {rules.GUEST_MAC} addrgenmode none",
            f"addr add {rules.GUEST}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {rules.GATEWAY}",
        ):
            sh("ip", "-n", space, *words.split())
        sh("ip", "netns", "exec", space, "sysctl", "-qw", "net.ipv4.tcp_syn_retries=1")
        ours = await inside(slot.namespace, lambda: open_tap(slot.tap))
        theirs = await inside(space, lambda: open_tap("eth0"))
        stops.append(pump_frames(ours, theirs))
        return KernelGuest(space)

    yield attach
    for stop in stops:
        stop()
    for space in spaces:
        sh("ip", "netns", "del", space)


def pump_frames(one: int, other: int) -> Callable[[], None]:
    """Carry frames both ways until called."""
    ending, wake = os.pipe()

    def carry() -> None:
        target = {one: other, other: one}
        while True:
            ready = select.select([one, other, ending], [], [])[0]
            if ending in ready:
                return
            for source in ready:
                with contextlib.suppress(OSError):
                    os.write(target[source], os.read(source, 70000))

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()

    def stop() -> None:
        os.close(wake)
        thread.join()
        for fd in (one, other, ending):
            os.close(fd)

    return stop


def resolved(name: str, kind: int = 1) -> bytes:
    """What the platform's resolver answers a guest; to be called inside it."""
    with datagrams() as sock:
        sock.settimeout(_SECONDS)
        sock.sendto(query(name)[:-4] + struct.pack(">HH", kind, 1), (rules.GATEWAY, 53))
        return sock.recv(4096)


def code(answer: bytes) -> int:
    return answer[3] & 0x0F


def connected(address: str, port: int, first: bytes = b"") -> bytes | str:
    """What a peer says first when it is told something; or how it was refused."""
    try:
        with socket.create_connection((address, port), 3) as sock:
            sock.settimeout(5)
            sock.sendall(first)
            return sock.recv(100) or "closed"
    except TimeoutError:
        return "silence"
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))


def tls_hello(name: str) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def with_extension(hello: bytes, kind: int, body: bytes) -> bytes:
    """A ClientHello of one record with an extension more."""
    extension = struct.pack(">HH", kind, len(body)) + body
    message = hello[9:]
    at = 34 + 1 + message[34]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    extensions = message[at + 2 :] + extension
    message = message[:at] + struct.pack(">H", len(extensions)) + extensions
    handshake = b"\1" + struct.pack(">I", len(message))[1:] + message
    return b"\x16\x03\x01" + struct.pack(">H", len(handshake)) + handshake


def http_request(host: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@pytest.fixture
def echoes(world: World) -> Iterator[None]:
    """Servers of the world that send back what they are told, on several ports; UDP, too."""
    stopping = threading.Event()
    socks: list[socket.socket] = []

    def listening(port: int) -> socket.socket:
        sock = socket.create_server(("0.0.0.0", port), backlog=64)
        socks.append(sock)
        return sock

    def serve(sock: socket.socket) -> None:
        while not stopping.is_set():
            try:
                peer, _ = sock.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(peer,), daemon=True).start()

    def echo(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65536):
                peer.sendall(data)

    threads = []
    for port in (80, 443, 2222, 8443):
        sock = world.do(lambda port=port: listening(port))
        threads.append(threading.Thread(target=serve, args=(sock,), daemon=True))
        threads[-1].start()
    yield
    stopping.set()
    for sock in socks:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
    for thread in threads:
        thread.join()


BY_NAME = policy(True, ["good.example.org", "rebound.example.org"], [])


class TestNamesRule:
    async def test_a_name_leads_to_its_address_and_no_further(
        self, network, world, names, echoes, kernels
    ):
        log = Log()
        guest = await kernels(await network.open(BY_NAME, log.append))
        assert await guest.do(lambda: connected(PUBLIC, 2222, b"x")) == "EHOSTUNREACH"
        assert code(await guest.do(lambda: resolved("good.example.org"))) == 0
        assert await guest.do(lambda: connected(PUBLIC, 2222, b"hello")) == b"hello"
        assert await guest.do(lambda: connected(SECOND, 2222, b"x")) == "EHOSTUNREACH"
        wanted = {("not_allowed", PUBLIC, 2222), ("not_allowed", SECOND, 2222)}
        await until(lambda: {(one.reason, one.address, one.port) for one in log} == wanted)

    async def test_an_answer_may_name_one_address_twice(
        self, network, world, names, echoes, kernels
    ):
        names.times = 3
        guest = await kernels(await network.open(BY_NAME))
        assert code(await guest.do(lambda: resolved("good.example.org"))) == 0
        assert await guest.do(lambda: connected(PUBLIC, 2222, b"hello")) == b"hello"

    async def test_other_names_are_not_even_asked_for(self, network, names, kernels):
        log = Log()
        guest = await kernels(await network.open(BY_NAME, log.append))
        assert code(await guest.do(lambda: resolved("secret.evil.net"))) == 5
        assert names.asked == []
        assert log == [Refusal("not_allowed", "dns", "secret.evil.net")]

    @pytest.mark.parametrize("allow", [[], [PUBLIC]])
    async def test_none_is_asked_for_under_addresses_alone(self, network, names, kernels, allow):
        """What a question says would be let out by it."""
        log = Log()
        guest = await kernels(await network.open(policy(True, allow, []), log.append))
        assert code(await guest.do(lambda: resolved("secret.evil.net"))) == 5
        assert names.asked == []
        assert log == [Refusal("not_allowed", "dns", "secret.evil.net")]

    async def test_an_answer_with_a_private_address_is_refused(self, network, names, kernels):
        for rule in (BY_NAME, OPEN):
            log = Log()
            guest = await kernels(await network.open(rule, log.append))
            assert code(await guest.do(lambda: resolved("rebound.example.org"))) == 5
            assert log == [Refusal("private_answer", "dns", "rebound.example.org")]

    async def test_a_name_that_leads_nowhere_is_answered_so(self, network, names, kernels):
        guest = await kernels(await network.open(policy(True, ["nowhere.example.org"], [])))
        answer = await guest.do(lambda: resolved("nowhere.example.org"))
        assert (code(answer), answer[6:8]) == (0, b"\0\0")

    async def test_keys_for_encrypted_hellos_are_held_back(self, network, names, kernels):
        guest = await kernels(await network.open(BY_NAME))
        answer = await guest.do(lambda: resolved("good.example.org", 65))
        assert (code(answer), answer[6:8]) == (0, b"\0\0")
        assert names.asked == []

    async def test_a_hello_must_be_for_an_admitted_name(
        self, network, world, names, echoes, kernels
    ):
        log = Log()
        guest = await kernels(await network.open(BY_NAME, log.append))
        await guest.do(lambda: resolved("good.example.org"))
        good, evil = tls_hello("good.example.org"), tls_hello("evil.net")
        assert await guest.do(lambda: connected(PUBLIC, 443, good)) == good[:100]
        assert await guest.do(lambda: connected(PUBLIC, 443, evil)) in ("ECONNRESET", "closed")
        assert await guest.do(lambda: connected(PUBLIC, 443, b"SSH-2.0-x\r\n")) == "ECONNRESET"
        wanted = {("not_allowed", "evil.net"), ("unreadable", None)}
        await until(lambda: {(one.reason, one.name) for one in log} == wanted)

    async def test_a_hello_that_can_hide_another_is_refused(
        self, network, world, names, echoes, kernels
    ):
        """Also when the name that it shows is admitted."""
        log = Log()
        guest = await kernels(await network.open(BY_NAME, log.append))
        await guest.do(lambda: resolved("good.example.org"))
        hiding = with_extension(tls_hello("good.example.org"), 0xFE0D, b"\0" + bytes(40))
        for port in (443, 8443):
            refused = await guest.do(lambda port=port: connected(PUBLIC, port, hiding))
            assert refused in ("ECONNRESET", "closed")
        wanted = [
            Refusal("encrypted_hello", "tcp", "good.example.org", PUBLIC, port)
            for port in (443, 8443)
        ]
        await until(lambda: log == wanted)

    async def test_a_hello_in_pieces_is_read(self, network, world, names, echoes, kernels):
        guest = await kernels(await network.open(BY_NAME))
        await guest.do(lambda: resolved("good.example.org"))
        hello = tls_hello("good.example.org")

        def dribbled() -> bytes:
            with socket.create_connection((PUBLIC, 443), 5) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for at in range(0, len(hello), 40):
                    sock.sendall(hello[at : at + 40])
                sock.settimeout(5)
                return sock.recv(100)

        assert (await guest.do(dribbled))[:20] == hello[:20]

    async def test_a_request_must_be_for_an_admitted_host(
        self, network, world, names, echoes, kernels
    ):
        log = Log()
        guest = await kernels(await network.open(BY_NAME, log.append))
        await guest.do(lambda: resolved("good.example.org"))
        good = await guest.do(lambda: connected(PUBLIC, 80, http_request("good.example.org")))
        assert b"Host: good.example.org\r\nConnection: close\r\n" in good
        evil = await guest.do(lambda: connected(PUBLIC, 80, http_request("evil.net")))
        assert evil in ("ECONNRESET", "closed")
        await until(
            lambda: [(one.reason, one.name) for one in log] == [("not_allowed", "evil.net")]
        )

    async def test_quic_is_refused(self, network, world, names, guests):
        log = Log()
        guest = await guests(await network.open(BY_NAME, log.append))
        guest.send(udp(rules.GATEWAY, 53, query("good.example.org")))
        assert await waits(lambda: guest.received(is_udp_from(53)))
        guest.send(udp(PUBLIC, 443, b"initial"))
        refusal = await waits(lambda: guest.received(is_anything))
        assert refusal is not None
        assert refusal[20:22] == b"\x03\x0d"
        await until(lambda: [(one.reason, one.protocol) for one in log] == [("quic", "udp")])

    async def test_quic_is_refused_on_every_port_and_in_every_flow(
        self, network, world, names, guests
    ):
        """Whatever the flow began with, and in whichever version a vendor speaks it."""
        versions = [b"\0\0\0\1", b"\x6b\x33\x43\xcf", b"\xff\0\0\x1d"]
        versions += [b"Q050", b"T051", b"\xfa\xce\xb0\2", b"\xab\xcd\0\1"]
        log = Log()
        guest = await guests(await network.open(BY_NAME, log.append))
        guest.send(udp(rules.GATEWAY, 53, query("good.example.org")))
        assert await waits(lambda: guest.received(is_udp_from(53)))
        with listening_in(world.cable) as outside:
            guest.send(udp(PUBLIC, 9000, b"first"))
            assert any(b"first" in frame for frame in await waits(lambda: heard(outside)))
            for version in versions:
                guest.send(udp(PUBLIC, 9000, b"\xc3" + version + b"\x08initial"))
            guest.send(
                udp(PUBLIC, 9000, b"\x80\x60\0\7not quic")
            )  # of RTP the first bit is set, too
            guest.send(udp(PUBLIC, 9000, b"\x43\0\0\0\1short last"))
            passed = await waits(lambda: heard(outside))
        assert any(b"not quic" in frame for frame in passed)
        assert any(b"short last" in frame for frame in passed)
        assert not any(b"initial" in frame for frame in passed)
        await until(lambda: [(one.reason, one.port) for one in log] == [("quic", 9000)] * 7)

    async def test_refusals_beyond_those_that_are_told_are_counted(
        self, network, world, names, guests
    ):
        log = Log()
        slot = await network.open(BY_NAME, log.append)
        guest = await guests(slot)
        for _ in range(1000):
            guest.send(udp(PUBLIC, 9, b"x"))
        await until(lambda: sum(one.times for one in log) == 1000)
        told = sum(1 for one in log if one.address == PUBLIC)
        assert told < 1000
        assert untold("not_allowed", 1) in log
        for _ in range(500):
            guest.send(udp(PUBLIC, 9, b"x"))
        await waits(lambda: guest.asks(ping(rules.GATEWAY), is_pong))  # all of them went through
        await network.change(slot, OPEN)  # its rules and their counts are made anew
        assert sum(one.times for one in log) == 1500

    async def test_a_denied_name_is_refused_wherever_it_is(
        self, network, world, names, echoes, kernels
    ):
        rule = policy(True, ["*", f"{PUBLIC}/32"], ["evil.net"])
        guest = await kernels(await network.open(rule))
        evil = tls_hello("evil.net")
        assert code(await guest.do(lambda: resolved("evil.net"))) == 5
        assert await guest.do(lambda: connected(PUBLIC, 443, evil)) in ("ECONNRESET", "closed")
        fine = tls_hello("fine.example.org")
        assert await guest.do(lambda: connected(PUBLIC, 443, fine)) == fine[:100]
        assert await guest.do(lambda: connected(SECOND, 2222, b"x")) == "EHOSTUNREACH"

    async def test_what_is_unreadable_may_be_for_a_denied_name(
        self, network, world, names, echoes, kernels
    ):
        """Only where none is denied is an allowed address reached with it on a web port."""
        for deny, answer in ([], b"SSH-2.0-x\r\n"), (["evil.net"], "ECONNRESET"):
            rule = policy(True, [f"{PUBLIC}/32", "good.example.org"], deny)
            guest = await kernels(await network.open(rule))
            said = await guest.do(lambda: connected(PUBLIC, 443, b"SSH-2.0-x\r\n"))
            assert said == answer
            assert await guest.do(lambda: connected(PUBLIC, 2222, b"x")) == b"x"

    async def test_the_relay_is_nobody(self, network, world, names, echoes, kernels):
        guest = await kernels(await network.open(BY_NAME))
        await guest.do(lambda: resolved("good.example.org"))
        hello = tls_hello("good.example.org")
        assert await guest.do(lambda: connected(PUBLIC, 443, hello)) == hello[:100]
        uid = network._relay_uid
        status = next(
            text
            for path in Path("/proc").glob("[0-9]*/status")
            if (text := readable(path)) and f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in text
        )
        pid = status.split("Pid:\t")[1].split()[0]
        assert all(f"Cap{kind}:\t0000000000000000" in status for kind in ("Eff", "Prm", "Amb"))
        assert "NoNewPrivs:\t1" in status
        assert list(Path(f"/proc/{pid}/root").iterdir()) == []

    async def test_a_relay_that_is_killed_comes_again(self, network, world, names, echoes, kernels):
        slot = await network.open(BY_NAME)
        guest = await kernels(slot)
        await guest.do(lambda: resolved("good.example.org"))
        hello = tls_hello("good.example.org")
        assert await guest.do(lambda: connected(PUBLIC, 443, hello)) == hello[:100]
        relay = network._served[slot.index]._relay
        assert relay is not None
        before = relay._writer
        before.transport.abort()
        await until(lambda: relay._writer not in (None, before))
        assert await guest.do(lambda: connected(PUBLIC, 443, hello)) == hello[:100]


@dataclass
class Datagrams:
    """Datagrams between a guest and an address of the world, of which the kernel knows as of a flow."""

    near: socket.socket
    far: socket.socket
    back: tuple[str, int]

    @classmethod
    async def begun(
        cls,
        guest: KernelGuest,
        world: World,
        address: str,
        port: int = 9000,
        *,
        answered: bool = True,
    ) -> Datagrams:
        far, near = await waits(lambda: world.do(datagrams)), await guest.do(datagrams)
        far.settimeout(_SECONDS)
        far.bind((address, port))
        near.connect((address, port))
        near.send(b"first")
        _, back = await waits(lambda: far.recvfrom(100))
        made = cls(near, far, back)
        if answered:
            assert await made.hears() == b"news"
        return made

    async def says(self) -> str:
        """What becomes of one that the guest sends."""
        self.near.send(b"more")
        socks = [self.near, self.far]
        ready, _, _ = await waits(lambda: select.select(socks, [], [], _SECONDS))
        try:
            return "arrived" if self.far in ready and self.far.recv(100) else str(self.near.recv(1))
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]

    async def hears(self, within: float = _SECONDS) -> bytes | None:
        """What comes to the guest of one that is sent to it."""
        self.far.sendto(b"news", self.back)
        ready, _, _ = await waits(lambda: select.select([self.near], [], [], within))
        return self.near.recv(100) if ready else None

    def close(self) -> None:
        self.near.close()
        self.far.close()


class TestChanges:
    async def test_cut_what_is_not_admitted_any_more(self, network, world, echoes, kernels):
        slot = await network.open(OPEN)
        guest = await kernels(slot)
        kept = await guest.do(lambda: socket.create_connection((PUBLIC, 2222), 5))
        cut = await guest.do(lambda: socket.create_connection((SECOND, 2222), 5))
        with kept, cut:
            await network.change(slot, policy(True, [PUBLIC], []))
            assert await waits(lambda: told(kept)) == b"x"
            assert await waits(lambda: told(cut)) == "ECONNRESET"
            await network.change(slot, policy(True, ["*"], [f"{PUBLIC}/32"]))
            assert await waits(lambda: told(kept)) == "ECONNRESET"

    async def test_cut_flows_of_datagrams_both_ways(self, network, world, kernels):
        """They have no end that could be told: neither answered ones nor others get through any more."""
        log = Log()
        slot = await network.open(OPEN, log.append)
        guest = await kernels(slot)
        begin = partial(Datagrams.begun, guest, world)
        kept, cut = await begin(PUBLIC), await begin(SECOND)
        mute = await begin(SECOND, 9001, answered=False)
        with closing(kept), closing(cut), closing(mute):
            await network.change(slot, policy(True, [PUBLIC], []))
            assert (await kept.says(), await kept.hears()) == ("arrived", b"news")
            assert (await cut.says(), await mute.says()) == ("EHOSTUNREACH", "EHOSTUNREACH")
            assert (await cut.hears(_QUIET), await mute.hears(_QUIET)) == (None, None)
            wanted = {Refusal("not_allowed", "udp", None, SECOND, port) for port in (9000, 9001)}
            await until(lambda: set(log) == wanted)
            for shut in (policy(True, ["*"], [f"{PUBLIC}/32"]), SHUT):
                await network.change(slot, OPEN)
                assert (await kept.says(), await kept.hears()) == ("arrived", b"news")
                await network.change(slot, shut)
                assert (await kept.says(), await kept.hears(_QUIET)) == ("EHOSTUNREACH", None)

    async def test_cut_flows_of_datagrams_whose_name_is_not_admitted_any_more(
        self, network, world, names, kernels
    ):
        """And of those that go on none that could be QUIC, wherever it leads."""
        slot = await network.open(OPEN)
        guest = await kernels(slot)
        await guest.do(lambda: resolved("good.example.org"))
        begin = partial(Datagrams.begun, guest, world)
        led, quic, other = await begin(PUBLIC), await begin(PUBLIC, 443), await begin(SECOND)
        with closing(led), closing(quic), closing(other):
            await network.change(slot, BY_NAME)
            assert (await led.says(), await led.hears()) == ("arrived", b"news")
            for cut in (quic, other):
                assert (await cut.says(), await cut.hears(_QUIET)) == ("EHOSTUNREACH", None)
            pinned = await begin(PUBLIC, 9002)
            with closing(pinned):
                await network.change(slot, policy(True, ["good.example.org", "more.org"], []))
                for goes_on in (led, pinned):
                    assert (await goes_on.says(), await goes_on.hears()) == ("arrived", b"news")
                await network.change(slot, policy(True, ["second.example.org"], []))
                for cut in (led, pinned):
                    assert (await cut.says(), await cut.hears(_QUIET)) == ("EHOSTUNREACH", None)

    async def test_what_the_other_side_says_first_goes_on(self, network, world, server, kernels):
        slot = await network.open(OPEN)
        guest = await kernels(slot)
        near = await guest.do(lambda: socket.create_connection((PUBLIC, PORT), 5))
        far, _ = server.accept()
        with near, far:
            near.settimeout(5)
            await network.change(slot, policy(True, [PUBLIC], []))
            far.sendall(b"news")
            assert await waits(lambda: near.recv(10)) == b"news"
            await network.change(slot, policy(True, [SECOND], []))
            far.sendall(b"more")
            near.settimeout(_QUIET)
            with pytest.raises(TimeoutError):
                await waits(lambda: near.recv(10))

    async def test_flows_by_name_go_on_while_the_name_is_admitted(
        self, network, world, names, echoes, kernels
    ):
        slot = await network.open(OPEN)
        guest = await kernels(slot)
        await guest.do(lambda: resolved("good.example.org"))
        kept = await guest.do(lambda: socket.create_connection((PUBLIC, 2222), 5))
        with kept:
            await network.change(slot, BY_NAME)
            assert await waits(lambda: told(kept)) == b"x"
            await network.change(slot, policy(True, ["second.example.org"], []))
            assert await waits(lambda: told(kept)) == "ECONNRESET"

    async def test_relayed_connections_are_cut(self, network, world, names, echoes, kernels):
        slot = await network.open(BY_NAME)
        guest = await kernels(slot)
        await guest.do(lambda: resolved("good.example.org"))
        relayed = await guest.do(lambda: socket.create_connection((PUBLIC, 443), 5))
        hello = tls_hello("good.example.org")
        with relayed:
            relayed.settimeout(5)
            relayed.sendall(hello)
            assert await waits(lambda: relayed.recv(len(hello)))
            await network.change(slot, policy(True, ["good.example.org", "more.org"], []))
            assert await waits(lambda: told(relayed)) not in ("ECONNRESET", "closed")
            await network.change(slot, policy(True, ["more.org"], []))
            assert await waits(lambda: told(relayed)) == "ECONNRESET"

    async def test_relayed_connections_are_cut_whose_address_no_admitted_name_led_to(
        self, network, world, names, echoes, kernels
    ):
        """Whatever they say: one that was carried, and one that said nothing before the change."""
        slot = await network.open(policy(True, ["good.example.org", "second.example.org"], []))
        guest = await kernels(slot)
        for name in ("good.example.org", "second.example.org"):
            await guest.do(lambda name=name: resolved(name))
        hello = tls_hello("good.example.org")
        carried = await guest.do(lambda: socket.create_connection((SECOND, 443), 5))
        silent = await guest.do(lambda: socket.create_connection((SECOND, 443), 5))
        led = await guest.do(lambda: socket.create_connection((PUBLIC, 443), 5))
        with carried, silent, led:
            carried.settimeout(5)
            carried.sendall(hello)
            assert await waits(lambda: carried.recv(len(hello)))
            await network.change(slot, policy(True, ["good.example.org"], []))
            assert await waits(lambda: told(carried)) == "ECONNRESET"
            assert await waits(lambda: told(silent, hello)) == "ECONNRESET"
            assert await waits(lambda: told(led, hello)) == hello[:1]

    async def test_a_connection_that_was_half_open_is_cut_as_well(
        self, network, world, names, guests
    ):
        """The relay has not seen it when it judges what there is."""
        slot = await network.open(policy(True, ["good.example.org", "second.example.org"], []))
        guest = await guests(slot)
        guest.send(udp(rules.GATEWAY, 53, query("second.example.org")))
        assert await waits(lambda: guest.received(is_udp_from(53)))
        answer = await waits(lambda: guest.asks(syn(SECOND, 443), is_syn_ack))
        assert answer is not None
        theirs = int.from_bytes(answer[24:28], "big") + 1
        await network.change(slot, policy(True, ["good.example.org"], []))
        guest.send(tcp(SECOND, 443, 0x10, 2, theirs))
        assert await waits(lambda: guest.received(is_reset))

    @pytest.mark.parametrize("allow", [[SECOND], []])
    async def test_relayed_connections_are_judged_by_address_where_no_name_rules(
        self, network, world, names, echoes, kernels, allow
    ):
        """One that was carried, one that had said nothing yet, and one that comes after."""
        slot = await network.open(BY_NAME)
        guest = await kernels(slot)
        await guest.do(lambda: resolved("good.example.org"))
        relayed = await guest.do(lambda: socket.create_connection((PUBLIC, 443), 5))
        silent = await guest.do(lambda: socket.create_connection((PUBLIC, 443), 5))
        hello = tls_hello("good.example.org")
        with relayed, silent:
            relayed.settimeout(5)
            relayed.sendall(hello)
            assert await waits(lambda: relayed.recv(len(hello)))
            await network.change(slot, policy(True, allow, []))
            assert await waits(lambda: told(relayed)) == "ECONNRESET"
            assert await waits(lambda: told(silent, tls_hello("evil.net"))) == "ECONNRESET"
            assert await guest.do(lambda: connected(PUBLIC, 443, hello)) == "EHOSTUNREACH"

    async def test_relayed_connections_go_on_at_an_address_that_is_allowed(
        self, network, world, names, echoes, kernels
    ):
        slot = await network.open(BY_NAME)
        guest = await kernels(slot)
        await guest.do(lambda: resolved("good.example.org"))
        relayed = await guest.do(lambda: socket.create_connection((PUBLIC, 443), 5))
        hello = tls_hello("good.example.org")
        with relayed:
            relayed.settimeout(5)
            relayed.sendall(hello)
            assert await waits(lambda: relayed.recv(len(hello)))
            await network.change(slot, policy(True, [PUBLIC], []))
            assert await waits(lambda: told(relayed)) not in ("ECONNRESET", "closed")

    async def test_off_and_on_again(self, network, world, echoes, kernels):
        log = Log()
        slot = await network.open(OPEN, log.append)
        guest = await kernels(slot)
        assert await guest.do(lambda: connected(PUBLIC, 2222, b"x")) == b"x"
        await network.change(slot, SHUT)
        with listening_in(world.cable) as outside:
            assert await guest.do(lambda: connected(PUBLIC, 2222, b"x")) == "EHOSTUNREACH"
            assert code(await guest.do(lambda: resolved("good.example.org"))) == 5
            assert await waits(lambda: everything_heard(outside)) == []
        await until(lambda: log.reasons() == {("internet_off", "tcp"), ("internet_off", "dns")})
        await network.change(slot, OPEN)
        assert await guest.do(lambda: connected(PUBLIC, 2222, b"x")) == b"x"

    async def test_a_restarted_platform_finds_flows_and_pins(
        self, network, world, names, echoes, kernels
    ):
        slot = await network.open(BY_NAME)
        guest = await kernels(slot)
        await guest.do(lambda: resolved("good.example.org"))
        kept = await guest.do(lambda: socket.create_connection((PUBLIC, 2222), 5))
        for served in network._served.values():
            await served.close()
        heir = NamespaceNetwork(
            slot.namespace.split("-")[1], reserve=0, upstreams=network._upstreams
        )
        await heir.adopt(slot, BY_NAME)
        with kept:
            assert await waits(lambda: told(kept)) == b"x"
        assert await guest.do(lambda: connected(PUBLIC, 2222, b"new")) == b"new"
        hello = tls_hello("good.example.org")
        assert await guest.do(lambda: connected(PUBLIC, 443, hello)) == hello[:100]
        await heir.close(slot)
        await heir.stop()

    async def test_another_version_of_the_platform_puts_its_own_rules_in_force(
        self, network, names, monkeypatch
    ):
        with monkeypatch.context() as before:
            before.setattr(rules, "_CHECKED", "443")
            slot = await network.open(BY_NAME)
            for served in network._served.values():
                await served.close()
        heir = NamespaceNetwork(
            slot.namespace.split("-")[1], reserve=0, upstreams=network._upstreams
        )
        await heir.adopt(slot, BY_NAME)
        divert = ("list", "chain", "ip", rules.TABLE, "divert")
        assert b"8443" in (await nft.ask(divert, slot.namespace)).stdout
        await heir.close(slot)
        await heir.stop()


class TestLimits:
    async def test_of_connections(self, world, echoes):
        network = new_network(limits=Limits(connections=5))
        log = Log()
        slot = await network.open(OPEN, log.append)
        tap = await inside(slot.namespace, lambda: open_tap(slot.tap))
        try:
            guest = FakeGuest(tap)
            assert await waits(lambda: guest.asks(ping(rules.GATEWAY), is_pong))
            for port in range(20):
                guest.send(udp(PUBLIC, 5000 + port, b"x"))
            await until(lambda: log.reasons() == {("too_many", "udp")})
            assert len({one.port for one in log}) == 16
        finally:
            os.close(tap)
            await network.close(slot)
            await network.stop()

    async def test_of_connections_let_one_begin_where_one_ended(
        self, network, world, echoes, kernels
    ):
        mine, log = new_network(limits=Limits(connections=5)), Log()
        slot = await mine.open(OPEN, log.append)
        held: list[socket.socket] = []

        def begun(within: float = _QUIET) -> bool:
            sock = socket.socket()
            sock.settimeout(within)
            held.append(sock)
            return sock.connect_ex((PUBLIC, 2222)) == 0

        try:
            guest = await kernels(slot)
            assert all([await guest.do(partial(begun, _SECONDS)) for _ in range(5)])
            assert not await guest.do(begun)
            assert [told(sock) for sock in held[:5]] == [b"x"] * 5
            await until(lambda: bool(log))
            assert set(log) == {Refusal("too_many", "tcp", None, PUBLIC, 2222)}
            held.pop().close()
            held.pop().close()
            async with asyncio.timeout(_SECONDS):
                while not await guest.do(begun):
                    held.pop().close()
            assert not await guest.do(begun)
        finally:
            for sock in held:
                sock.close()
            await mine.close(slot)
            await mine.stop()

    async def test_of_connections_outlive_a_change_of_the_policy(self, world, echoes):
        network = new_network(limits=Limits(connections=5))
        log = Log()
        slot = await network.open(OPEN, log.append)
        tap = await inside(slot.namespace, lambda: open_tap(slot.tap))
        try:
            guest = FakeGuest(tap)
            assert await waits(lambda: guest.asks(ping(rules.GATEWAY), is_pong))
            for n in range(3):
                for port in range(10):
                    guest.send(udp(PUBLIC, 5000 + 100 * n + port, b"x"))
                await waits(lambda: guest.asks(ping(rules.GATEWAY), is_pong))
                await network.change(slot, policy(True, ["*"], [f"8.8.8.{n}"]))
            assert sum(one.times for one in log) == 30 - 4  # the ping is a flow, too
        finally:
            os.close(tap)
            await network.close(slot)
            await network.stop()

    async def test_of_new_flows_in_a_second(self, world, echoes, kernels, network):
        """Those that were closed count no more, and are remembered all the same."""
        mine = new_network(limits=Limits(connections=400))
        log = Log()
        slot = await mine.open(OPEN, log.append)
        try:
            guest = await kernels(slot)

            def closed(count: int) -> int:
                made = 0
                for _ in range(count):
                    with socket.socket() as sock:
                        sock.settimeout(0.05)
                        made += sock.connect_ex((PUBLIC, 2222)) == 0
                return made

            begun = time.monotonic()
            made = await guest.do(lambda: closed(300))
            assert made <= 110 + 50 * (time.monotonic() - begun)
            await until(lambda: ("too_many", "tcp") in log.reasons())
        finally:
            await mine.close(slot)
            await mine.stop()

    async def test_of_new_flows_of_one_leave_the_others_their_share(
        self, world, monkeypatch, caplog
    ):
        """Each may begin one a second, after a while without twenty at once; all others 11 beyond that."""
        monkeypatch.setattr(crowd, "tracked", lambda: 5600)
        network, log = new_network(sandboxes=10), Log()
        slots, taps = (
            [await network.open(OPEN, log.append), await network.open(OPEN, log.append)],
            [],
        )
        try:
            for slot in slots:
                taps.append(await inside(slot.namespace, lambda slot=slot: open_tap(slot.tap)))
            hostile, other = (FakeGuest(tap) for tap in taps)
            for guest in (hostile, other):
                assert await waits(lambda guest=guest: guest.asks(ping(rules.GATEWAY), is_pong))

            def flood(first: int) -> int:
                for port in range(first, first + 300):
                    hostile.send(syn(PUBLIC, 10_000 + port))
                answered = 0
                while hostile.received(is_reset, _QUIET):
                    answered += 1
                return answered

            assert 0 < await waits(lambda: flood(0)) < 250
            for n in range(1, 9):
                await waits(lambda n=n: flood(300 * n))
                other.send(syn(PUBLIC, 9_000 + n))
                assert await waits(lambda: other.received(is_reset))
            await until(lambda: sum(one.times for one in log) > 300)
            assert {(one.reason, one.address) for one in log} == {("host_full", None)}
            await network._firewall._mend()
            assert "somebody changed the firewall" not in caplog.text
        finally:
            for tap in taps:
                os.close(tap)
            for slot in slots:
                await network.close(slot)
            await gone(network)

    async def test_of_what_is_held_open_by_one_leave_the_others_their_share(
        self, world, echoes, kernels, monkeypatch
    ):
        """Where the host is full each has eight connections, and what is more is in its log."""
        room = False
        shares = cables.Pace(each=6000, others=100, held=8, room=1000)
        monkeypatch.setattr(cables, "pace", lambda *_: shares)
        monkeypatch.setattr(crowd, "has_room", lambda most, had: room)
        network, logs = new_network(sandboxes=10), [Log(), Log(), Log()]
        slots = [await network.open(OPEN, log.append) for log in logs[:2]]
        held: list[socket.socket] = []

        def hold(count: int) -> int:
            opened = 0
            for _ in range(count):
                held.append(socket.socket())
                held[-1].settimeout(0.2)
                opened += held[-1].connect_ex((PUBLIC, 2222)) == 0
            return opened

        try:
            hostile, other = [await kernels(slot) for slot in slots]
            assert await hostile.do(lambda: hold(12)) == 8
            await until(lambda: sum(one.times for one in logs[0]) >= 4)
            assert set(logs[0]) == {Refusal("host_full", "other")}
            assert await other.do(lambda: hold(8)) == 8
            assert not logs[1]
            await network.stop()
            assert await hostile.do(lambda: hold(2)) == 0  # nobody looks, and the kernel refuses
            network = NamespaceNetwork(network._names.install_id, reserve=0, sandboxes=10)
            room = True
            await network.adopt(slots[0], OPEN, logs[2].append)
            assert logs[2] == [Refusal("host_full", "other")]
            await until(lambda: network._firewall._crowd._said)
            assert await hostile.do(lambda: hold(12)) == 12
        finally:
            for sock in held:
                sock.close()
            await gone(network)

    async def test_of_new_flows_are_none_of_packets(self, world, kernels):
        """Which nobody answers."""
        network, log = new_network(limits=Limits(connections=4096)), Log()
        slot = await network.open(OPEN, log.append)
        try:
            guest = await kernels(slot)
            silent = await asyncio.to_thread(world.do, datagrams)
            silent.bind(("0.0.0.0", 2299))

            def talk() -> None:
                with datagrams() as sock:
                    for _ in range(2000):
                        sock.sendto(b"x", (PUBLIC, 2299))

            with silent:
                await guest.do(talk)
                assert await waits(lambda: heard(silent))
            assert not log
        finally:
            await network.close(slot)
            await network.stop()

    async def test_of_what_the_kernel_holds_for_a_relayed_connection(
        self, network, world, names, kernels
    ):
        """Whose other side does not read."""
        slot = await network.open(BY_NAME)
        guest = await kernels(slot)
        await guest.do(lambda: resolved("good.example.org"))
        deaf = await asyncio.to_thread(
            world.do, lambda: socket.create_server(("0.0.0.0", 443), backlog=8)
        )

        def pushed() -> int:
            with socket.create_connection((PUBLIC, 443), 5) as sock:
                sock.sendall(tls_hello("good.example.org"))
                sock.settimeout(1)
                with contextlib.suppress(TimeoutError):
                    while True:
                        sock.sendall(b"\x17\3\3\x40\0" + bytes(16384))
                held = sh("ip", "netns", "exec", slot.namespace, "ss", "-tmnH")
                return sum(map(int, re.findall(r"(?:\(r|,w)(\d+)", held)))

        with deaf:
            assert 0 < await guest.do(pushed) < 1 << 20

    async def test_of_packets(self, world):
        """Whatever is sent, in so long a time so many leave."""
        network = new_network(limits=Limits(packets=50))
        slot = await network.open(OPEN)
        tap = await inside(slot.namespace, lambda: open_tap(slot.tap))
        try:
            guest = FakeGuest(tap)
            assert await waits(lambda: guest.asks(ping(rules.GATEWAY), is_pong))
            with await inside(slot.namespace, lambda: listening_in("out")) as cable:
                began, sent = time.monotonic(), 0
                while sent < 2000 or time.monotonic() - began < 0.5:
                    guest.send(udp(PUBLIC, 9, b"x"))
                    sent += 1
                left = len(await waits(lambda: heard(cable, most=1000)))
                assert 0 < left <= 5 + 50 * (time.monotonic() - began)
        finally:
            os.close(tap)
            await network.close(slot)
            await network.stop()

    async def test_of_bandwidth_both_ways(self, network, world, server, kernels):
        """So many bytes take so long, but for a burst, whatever else the machine does."""
        mine = new_network(limits=Limits(mbit=20))
        slot = await mine.open(OPEN)
        size = 2 << 20

        def seconds(source: socket.socket, target: socket.socket) -> float:
            sending = threading.Thread(target=source.sendall, args=(bytes(size),))
            began, left = time.monotonic(), size
            sending.start()
            while left:
                left -= len(target.recv(left))
            sending.join()
            return time.monotonic() - began

        try:
            guest = await kernels(slot)
            near = await guest.do(lambda: socket.create_connection((PUBLIC, PORT), 5))
            far, _ = server.accept()
            with near, far:
                for ends in ((near, far), (far, near)):
                    took = await waits(lambda ends=ends: seconds(*ends))
                    assert took >= (size - slots._BURST_BYTES) * 8 / 20e6
        finally:
            await mine.close(slot)
            await mine.stop()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(_SECONDS):
        while not done():
            await asyncio.sleep(0.01)


def told(sock: socket.socket, said: bytes = b"x") -> bytes | str:
    """What comes back when an echo is told something; or how that failed."""
    sock.settimeout(5)
    try:
        sock.sendall(said)
        return sock.recv(1) or "closed"
    except TimeoutError:
        return "silence"
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))


def readable(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class TestSlots:
    async def test_none_is_given_twice(self, network):
        opened = await asyncio.gather(*(network.open(SHUT) for _ in range(6)))
        assert len({slot.namespace for slot in opened}) == 6

    async def test_a_reserve_is_filled(self):
        network = new_network(reserve=2)
        try:
            first = await network.open(SHUT)
            names = Names(first.namespace.split("-")[1])
            async with asyncio.timeout(_SECONDS):
                while len(slots.found(names)) < 3:
                    await asyncio.sleep(0.05)
            assert await network.reclaim([first]) == 0
        finally:
            await network.close(first)
            await network.stop()
        assert slots.found(names) == set()

    async def test_a_closed_one_leaves_nothing(self, network):
        slot = await network.open(OPEN)
        await network.close(slot)
        await network.close(slot)
        names = Names(slot.namespace.split("-")[1])
        assert slots.found(names) == set()

    async def test_one_that_is_gone_cannot_be_adopted(self, network):
        slot = await network.open(OPEN)
        await network.close(slot)
        with pytest.raises(Unavailable):
            await network.adopt(slot, OPEN)

    async def test_a_restarted_platform_goes_on(self, network, world, server, nameserver, guests):
        slot, lost = [await network.open(OPEN) for _ in range(2)]
        for served in network._served.values():  # the process is gone, and with it its sockets
            await served.close()
        heir = NamespaceNetwork(
            slot.namespace.split("-")[1], reserve=0, upstreams=network._upstreams
        )
        await heir.adopt(slot, OPEN)
        assert await heir.reclaim([slot]) == 1
        assert not (NAMESPACES / lost.namespace).exists()
        guest = await guests(slot)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))
        assert await waits(lambda: guest.asks(udp(rules.GATEWAY, 53, query()), is_udp_from(53)))
        await heir.close(slot)
        await heir.stop()

    async def test_installations_leave_each_other_alone(self, network, world, server, guests):
        other = new_network()
        try:
            mine, theirs = await network.open(OPEN), await other.open(OPEN)
            assert await other.reclaim([theirs]) == 0
            assert host_end(mine) != host_end(theirs)
            await other.close(theirs)
        finally:
            await other.stop()
        guest = await guests(mine)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))

    async def test_the_end_leaves_no_rule(self):
        network = new_network()
        slot = await network.open(OPEN)
        table = Names(slot.namespace.split("-")[1]).table
        assert table in sh("nft", "list", "tables")
        await network.close(slot)
        await network.stop()
        assert table not in sh("nft", "list", "ruleset")


class TestOtherFirewalls:
    async def test_nothing_that_others_do_ends_the_watch(self, network, monkeypatch, caplog):
        slot = await network.open(OPEN)
        table = Names(slot.namespace.split("-")[1]).table
        real = firewall._ruleset
        calls = 0

        async def strange() -> dict[str, Any]:
            nonlocal calls
            calls += 1
            return {"nftables": [{"chain": {}}, {"rule": {}}]}

        monkeypatch.setattr(firewall, "_ruleset", strange)
        sh("nft", "flush", "table", "inet", table)
        await until(lambda: "could not be looked after" in caplog.text)
        monkeypatch.setattr(firewall, "_ruleset", real)
        sh("nft", "flush", "table", "inet", table)
        await until(lambda: "masquerade" in listed(table))

    @pytest.fixture
    def dropping(self) -> Iterator[str]:
        """A chain such as a container engine's, which drops what it does not know."""
        table = f"rtforeign{secrets.token_hex(2)}"
        chain = "{ type filter hook forward priority 0; policy drop; }"
        sh("nft", f"add table ip {table}; add chain ip {table} FORWARD {chain}")
        yield table
        sh("nft", "delete", "table", "ip", table)

    @pytest.fixture
    def apart(self) -> Iterator[str]:
        """One whose ruleset nobody else changes: of the machine's, other platforms are heard, too."""
        name = f"apart-{secrets.token_hex(3)}"
        sh("ip", "netns", "add", name)
        yield name
        sh("ip", "netns", "delete", name)

    async def test_what_comes_and_goes_in_sets_is_no_change(self, apart):
        """Else a guest that is refused would have the rules of the host listed every second."""

        def nft(text: str) -> None:
            sh("ip", "netns", "exec", apart, "nft", text)

        names = Names(secrets.token_hex(3))
        nft(cables.table(names, IPv4Network("198.18.0.0/24"), cables.pace(crowd.tracked(), 8)))
        nft("add table ip foreign; add set ip foreign some { type ipv4_addr; }")
        changes = await inside(apart, lambda: netlink.Changes(names.table, cables.PASSING))
        with closing(changes):
            heard = asyncio.create_task(changes.wait())
            for line in (
                *cables.room(names, 60).splitlines(),
                f"add element inet {names.table} {cables.OVER} {{ 198.18.0.1 counter }}",
                f"delete element inet {names.table} {cables.OVER} {{ 198.18.0.1 }}",
                "add element ip foreign some { 192.0.2.1 }",
            ):
                nft(line)
            await until(lambda: heard.done() or not select.select([changes._sock], [], [], 0)[0])
            await asyncio.sleep(0)
            assert not heard.done()
            nft(f"add element inet {names.table} closed {{ 203.0.113.9 }}")
            async with asyncio.timeout(_SECONDS):
                await heard

    async def test_what_is_put_into_a_set_of_ours_is_taken_out_again(self, network):
        slot = await network.open(OPEN)
        table = Names(slot.namespace.split("-")[1]).table
        sh("nft", f"add element inet {table} closed {{ 203.0.113.9 }}")
        await until(lambda: "203.0.113.9" not in listed(table))

    async def test_are_passed_by_ours_alone(self, dropping, network, world, server, guests):
        slot = await network.open(OPEN)
        mine = Names(slot.namespace.split("-")[1])
        guest = await guests(slot)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))
        added = sh("nft", "list", "table", "ip", dropping).splitlines()
        for line in (line for line in added if mine.table in line):
            assert f'name "{mine.veths}"' in line
        await gone(network)
        assert mine.table not in sh("nft", "list", "table", "ip", dropping)

    async def test_that_come_later_are_passed_too(self, network, world, server, guests):
        slot = await network.open(OPEN)
        mine = Names(slot.namespace.split("-")[1])
        guest = await guests(slot)
        table = f"rtforeign{secrets.token_hex(2)}"
        chain = "{ type filter hook forward priority 0; policy drop; }"
        sh("nft", f"add table ip {table}; add chain ip {table} FORWARD {chain}")
        try:
            async with asyncio.timeout(_SECONDS):
                while mine.table not in sh("nft", "list", "table", "ip", table):
                    await asyncio.sleep(0.05)
            assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))
        finally:
            sh("nft", "delete", "table", "ip", table)

    @pytest.mark.parametrize("how", ["delete table", "flush table", "flush set"])
    async def test_a_table_that_was_taken_away_comes_back(
        self, network, world, server, guests, how
    ):
        slot = await network.open(OPEN)
        table = Names(slot.namespace.split("-")[1]).table
        before = listed(table)
        sh("nft", *how.split(), "inet", table, *(["closed"] if how == "flush set" else []))
        async with asyncio.timeout(_SECONDS):
            while not (found := listed(table)) or found != before:
                await asyncio.sleep(0.05)
        guest = await guests(slot)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))


def listed(table: str) -> str:
    command = ["nft", "list", "table", "inet", table]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return re.sub(r"\n.* timeout .* expires .*", "", said)


def host_end(slot: Slot) -> str:
    """The host's address on the cable of a slot."""
    veth = Names(slot.namespace.split("-")[1]).veth(slot.index)
    return sh("ip", "-4", "-o", "addr", "show", "dev", veth).split("inet ")[1].split("/")[0]


def namespace_end(slot: Slot) -> str:
    words = sh("ip", "-n", slot.namespace, "-4", "-o", "addr", "show", "dev", "out")
    return words.split("inet ")[1].split("/")[0]


def datagrams() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def listening_in(device: str) -> socket.socket:
    """Hears every frame that leaves or enters by a device of the calling thread's namespace."""
    # Of no protocol until it is bound: it would hear what passes any device in between.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((device, _ETH_P_ALL))
    return sock


def heard(sock: socket.socket, within: float = _QUIET, most: int = 100) -> list[bytes]:
    """The frames that came, ARP aside, which is the namespace's own."""
    frames: list[bytes] = []
    deadline = time.monotonic() + (within if most >= 100 else _SECONDS)
    while (left := deadline - time.monotonic()) > 0 and len(frames) < most:
        if select.select([sock], [], [], left)[0]:
            frame = sock.recv(65536)
            if frame[12:14] != b"\x08\x06":
                frames.append(frame)
    return frames


def everything_heard(sock: socket.socket) -> list[bytes]:
    """All frames that left by a device in a while, ARP and all."""
    frames = []
    while select.select([sock], [], [], _QUIET)[0]:
        frame, (_, _, direction, *_) = sock.recvfrom(65536)
        if direction == socket.PACKET_OUTGOING:
            frames.append(frame)
    return frames


def heard_last(guest: FakeGuest) -> None:
    """Read answers until none comes any more."""
    while guest.received(is_anything, _QUIET):
        pass
