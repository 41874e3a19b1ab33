"""Networks of sandboxes, with namespaces standing in for the internet and a socket for the guest.

``world`` is a machine outside with a public address and a private one; the guest's end of a slot's tap
is played by a few lines of Ethernet, so that frames can be sent that no kernel would send.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import select
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from runtools.errors import Unavailable
from runtools.platform.core.ports.driver import Slot
from runtools.platform.host.net import rules, slots
from runtools.platform.host.net.enter import NAMESPACES, inside
from runtools.platform.host.net.names import Names
from runtools.platform.host.net.network import NamespaceNetwork
from runtools.platform.host.net.resolver import Upstreams
from runtools.platform.host.net.taps import open_tap

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

T = TypeVar("T")

PUBLIC = "203.0.113.1"
PRIVATE = "10.99.7.1"
PORT = 8080
_SECONDS = 10.0
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
    segment = struct.pack(">HHIIBBHHH", 4445, port, 1, 0, 5 << 4, 2, 64240, 0, 0)
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

    def asks(self, packet: bytes, wanted: Callable[[bytes], bool]) -> bytes | None:
        """Send until what is wanted comes: the kernel takes a moment to see that a tap is in use."""
        for _ in range(int(_SECONDS / _QUIET)):
            self.send(packet)
            if answer := self.received(wanted, _QUIET):
                return answer
        return None


def is_syn_ack(packet: bytes) -> bool:
    return packet[9] == 6 and packet[33] & 0x12 == 0x12


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
        for device, own in ((cable, "192.88.98.1/30"),):
            sh("ip", "addr", "add", own, "dev", device)
            sh("ip", "link", "set", device, "up")
        for own in ("192.88.98.2/30", f"{PUBLIC}/32", f"{PRIVATE}/32"):
            sh("ip", "-n", space, "addr", "add", own, "dev", "net0")
        sh("ip", "-n", space, "link", "set", "net0", "up")
        sh("ip", "-n", space, "link", "set", "lo", "up")
        sh("ip", "-n", space, "route", "add", "default", "via", "192.88.98.1")
        for there in (PUBLIC, PRIVATE):
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
    """Answers every query with its own question and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.silent = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        if not self.silent:
            self.transport.sendto(data[:2] + b"\x81\x80" + data[4:], addr)


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


def new_network(upstreams: Upstreams | None = None, reserve: int = 0) -> NamespaceNetwork:
    return NamespaceNetwork(f"n{secrets.token_hex(3)[:5]}", reserve=reserve, upstreams=upstreams)


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


class TestWhatIsReached:
    async def test_a_public_address_is(self, network, world, server, guests):
        guest = await guests(await network.open(internet=True))
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))

    async def test_private_addresses_are_not(self, network, world, server, guests):
        guest = await guests(await network.open(internet=True))
        refusal = await waits(lambda: guest.asks(syn(PRIVATE, PORT), is_anything))
        assert refusal is not None
        assert refusal[9] == 1  # ICMP: administratively prohibited, at once
        assert refusal[20:22] == b"\x03\x0d"

    @pytest.mark.parametrize(
        "address",
        [
            *("10.1.2.3", "172.16.0.1", "172.31.255.254", "192.168.1.1", "100.64.0.1"),
            *("169.254.169.254", "168.63.129.16", "127.0.0.1", "198.18.0.1", "192.0.2.1"),
            *("224.0.0.251", "255.255.255.255", "0.0.0.0"),
        ],
    )
    async def test_nothing_goes_to_closed_ranges(self, network, guests, address):
        slot = await network.open(internet=True)
        guest = await guests(slot)
        with await inside(slot.namespace, lambda: listening_in("out")) as wire:
            guest.send(udp(address, 9, b"hello"))
            guest.send(syn(address, 80))
            assert await waits(lambda: heard(wire)) == []

    async def test_the_host_is_not(self, network, world, guests, server):
        """Neither at its end of the cable nor at any other address, public ones included."""
        slot = await network.open(internet=True)
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
        one, other = [await network.open(internet=True) for _ in range(2)]
        guest, neighbour = await guests(one), await guests(other)
        names = Names(one.namespace.split("-")[1])
        sh("nft", "flush", "set", "inet", names.table, "closed")
        sh("ip", "netns", "exec", one.namespace, "nft", "flush", "set", "ip", "sandbox", "closed")
        guest.send(syn(namespace_end(other), 7709))
        guest.send(syn(rules.GUEST, 7709))
        assert not await waits(lambda: neighbour.received(is_anything, _QUIET))

    async def test_the_gateway_offers_the_resolver_alone(self, network, guests):
        slot = await network.open(internet=True)
        guest = await guests(slot)

        def listening() -> socket.socket:
            sock = socket.socket()
            sock.bind((rules.GATEWAY, 22))
            sock.listen()
            return sock

        with await inside(slot.namespace, listening):
            guest.send(syn(rules.GATEWAY, 22))
            assert not await waits(lambda: guest.received(is_syn_ack, _QUIET))
            assert await waits(lambda: guest.asks(syn(rules.GATEWAY, 53), is_syn_ack))

    async def test_nothing_outside_begins_to_speak_to_it(self, network, world, guests):
        slot = await network.open(internet=True)
        guest = await guests(slot)
        sh("ip", "-n", world.namespace, "route", "add", "198.18.0.0/15", "via", "192.88.98.1")
        try:
            with await inside(world.namespace, datagrams) as sock:
                sock.sendto(b"knock", (namespace_end(slot), 7709))
                assert not await waits(lambda: guest.received(is_anything, _QUIET))
        finally:
            sh("ip", "-n", world.namespace, "route", "del", "198.18.0.0/15")


class TestForgery:
    """Frames that are not the guest's own never leave the tap."""

    @pytest.mark.parametrize(
        ("packet", "source", "kind"),
        [
            (udp(PUBLIC, 9, b"x", source="10.0.2.77"), rules.GUEST_MAC, 0x0800),
            (udp(PUBLIC, 9, b"x", source="8.8.8.8"), rules.GUEST_MAC, 0x0800),
            (udp(PUBLIC, 9, b"x"), "52:54:00:aa:bb:cc", 0x0800),
            (bytes.fromhex("6000000000083aff") + bytes(40), rules.GUEST_MAC, 0x86DD),
            (b"\x00\x01\x08\x00" + udp(PUBLIC, 9, b"x"), rules.GUEST_MAC, 0x8100),
        ],
        ids=["neighbour's address", "foreign address", "foreign MAC", "IPv6", "VLAN"],
    )
    async def test_is_dropped(self, network, world, guests, packet, source, kind):
        slot = await network.open(internet=True)
        guest = await guests(slot)
        with await inside(slot.namespace, lambda: listening_in("out")) as wire:
            guest.send(packet, source=source, kind=kind)
            assert await waits(lambda: heard(wire)) == []
            guest.send(udp(PUBLIC, 9, b"mine"))
            assert len(await waits(lambda: heard(wire, most=1))) == 1


class TestWithoutInternet:
    async def test_not_one_packet_leaves(self, network, world, server, guests):
        slot = await network.open(internet=False)
        guest = await guests(slot)
        with listening_in(world.cable) as outside:
            guest.send(syn(PUBLIC, PORT))
            guest.send(udp(PUBLIC, 53, query()))
            guest.send(udp(rules.GATEWAY, 53, query()))
            assert await waits(lambda: heard(outside, 1.0)) == []

    async def test_names_are_refused(self, network, nameserver, guests):
        guest = await guests(await network.open(internet=False))
        answer = await waits(lambda: guest.asks(udp(rules.GATEWAY, 53, query()), is_udp_from(53)))
        assert answer is not None
        assert answer[28:30] == struct.pack(">H", 77)
        assert answer[31] & 0x0F == 5
        assert nameserver.asked == []

    async def test_an_open_slot_can_be_closed_and_opened(self, network, world, server, guests):
        slot = await network.open(internet=False)
        guest = await guests(slot)
        await network.set_internet(slot, internet=True)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))


class TestResolver:
    async def test_asks_the_hosts_own_nameserver(self, network, nameserver, guests):
        guest = await guests(await network.open(internet=True))
        answer = await waits(
            lambda: guest.asks(udp(rules.GATEWAY, 53, query(ident=4711)), is_udp_from(53))
        )
        assert answer is not None
        assert answer[28:30] == struct.pack(">H", 4711)
        assert answer[31] & 0x0F == 0
        assert nameserver.asked[0][2:] == query()[2:]

    async def test_ids_are_its_own(self, network, nameserver, guests):
        guest = await guests(await network.open(internet=True))
        for _ in range(8):
            assert await waits(
                lambda: guest.asks(udp(rules.GATEWAY, 53, query(ident=1)), is_udp_from(53))
            )
        assert len({asked[:2] for asked in nameserver.asked}) > 4

    async def test_says_when_nobody_answers(self, network, nameserver, guests, monkeypatch):
        monkeypatch.setattr("runtools.platform.host.net.resolver._ANSWER_SECONDS", 0.1)
        nameserver.silent = True
        guest = await guests(await network.open(internet=True))
        answer = await waits(lambda: guest.asks(udp(rules.GATEWAY, 53, query()), is_udp_from(53)))
        assert answer is not None
        assert answer[31] & 0x0F == 2

    async def test_is_not_impressed_by_garbage(self, network, nameserver, guests):
        guest = await guests(await network.open(internet=True))
        for data in (b"", b"x", bytes(12), b"\xff" * 600, query()[:-3], query() * 200):
            guest.send(udp(rules.GATEWAY, 53, data[:1400]))
        guest.send(udp(rules.GATEWAY, 53, query(ident=99)))
        mine = struct.pack(">H", 99)
        assert await waits(lambda: guest.received(lambda got: got[28:30] == mine))

    async def test_a_flood_is_bounded(self, network, nameserver, guests):
        guest = await guests(await network.open(internet=True))
        for n in range(1000):
            guest.send(udp(rules.GATEWAY, 53, query(ident=n)))
        await waits(lambda: heard_last(guest))
        assert len(nameserver.asked) < 500


class TestSlots:
    async def test_none_is_given_twice(self, network):
        opened = await asyncio.gather(*(network.open(internet=False) for _ in range(6)))
        assert len({slot.namespace for slot in opened}) == 6

    async def test_a_reserve_is_filled(self):
        network = new_network(reserve=2)
        try:
            first = await network.open(internet=False)
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
        slot = await network.open(internet=True)
        await network.close(slot)
        await network.close(slot)
        names = Names(slot.namespace.split("-")[1])
        assert slots.found(names) == set()

    async def test_one_that_is_gone_cannot_be_adopted(self, network):
        slot = await network.open(internet=True)
        await network.close(slot)
        with pytest.raises(Unavailable):
            await network.adopt(slot, internet=True)

    async def test_a_restarted_platform_goes_on(self, network, world, server, nameserver, guests):
        slot, lost = [await network.open(internet=True) for _ in range(2)]
        for desk in network._desks.values():  # the process is gone, and with it its sockets
            await desk.close()
        heir = NamespaceNetwork(
            slot.namespace.split("-")[1], reserve=0, upstreams=network._upstreams
        )
        await heir.adopt(slot, internet=True)
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
            mine, theirs = await network.open(internet=True), await other.open(internet=True)
            assert await other.reclaim([theirs]) == 0
            assert host_end(mine) != host_end(theirs)
            await other.close(theirs)
        finally:
            await other.stop()
        guest = await guests(mine)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))

    async def test_the_end_leaves_no_rule(self):
        network = new_network()
        slot = await network.open(internet=True)
        table = Names(slot.namespace.split("-")[1]).table
        assert table in sh("nft", "list", "tables")
        await network.close(slot)
        await network.stop()
        assert table not in sh("nft", "list", "ruleset")


class TestOtherFirewalls:
    @pytest.fixture
    def dropping(self) -> Iterator[str]:
        """A chain such as a container engine's, which drops what it does not know."""
        table = f"rtforeign{secrets.token_hex(2)}"
        chain = "{ type filter hook forward priority 0; policy drop; }"
        sh("nft", f"add table ip {table}; add chain ip {table} FORWARD {chain}")
        yield table
        sh("nft", "delete", "table", "ip", table)

    async def test_are_passed_by_ours_alone(self, dropping, network, world, server, guests):
        slot = await network.open(internet=True)
        mine = Names(slot.namespace.split("-")[1])
        guest = await guests(slot)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))
        added = sh("nft", "list", "table", "ip", dropping).splitlines()
        for line in (line for line in added if mine.table in line):
            assert f'name "{mine.veths}"' in line
        await gone(network)
        assert mine.table not in sh("nft", "list", "table", "ip", dropping)

    async def test_that_come_later_are_passed_too(self, network, world, server, guests):
        slot = await network.open(internet=True)
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

    async def test_a_table_that_was_taken_away_comes_back(self, network, world, server, guests):
        slot = await network.open(internet=True)
        table = Names(slot.namespace.split("-")[1]).table
        sh("nft", "delete", "table", "inet", table)
        async with asyncio.timeout(_SECONDS):
            while table not in sh("nft", "list", "tables"):
                await asyncio.sleep(0.05)
        guest = await guests(slot)
        assert await waits(lambda: guest.asks(syn(PUBLIC, PORT), is_syn_ack))


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
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.bind((device, 0))
    return sock


def heard(sock: socket.socket, within: float = _QUIET, most: int = 100) -> list[bytes]:
    """The frames that came, ARP aside, which is the namespace's own."""
    frames: list[bytes] = []
    deadline = time.monotonic() + (within if most == 100 else _SECONDS)
    while (left := deadline - time.monotonic()) > 0 and len(frames) < most:
        if select.select([sock], [], [], left)[0]:
            frame = sock.recv(65536)
            if frame[12:14] != b"\x08\x06":
                frames.append(frame)
    return frames


def heard_last(guest: FakeGuest) -> None:
    """Read answers until none comes any more."""
    while guest.received(is_anything, _QUIET):
        pass
