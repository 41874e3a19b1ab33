"""What an egress policy costs: a change until it is in force, and bytes a second under 200 rules.

The change is asked for through the SDK, of a running sandbox. For the bytes, namespaces stand in for guest
and internet, with a cable where the guest's tap would be: no emulator is in the way, so that what rules
cost shows. The rules and the relay are the platform's own.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address

from bench.section import Bench
from bench.table import Row, Series, at_least, at_most, row
from runtools.platform.core.egress import OPEN, Policy, policy
from runtools.platform.host.net import rules, slots
from runtools.platform.host.net.enter import inside
from runtools.platform.host.net.names import TAP, UPLINK
from runtools.platform.host.net.relays import Relay
from runtools.platform.host.net.rules import NO_LIMITS, Known
from runtools.platform.kit.config import Settings

RULES = 200
WORLD = "203.0.113.1"
NAME = "good.example.org"
SECONDS = 1.0
FOURS = 1.5  # for each round: without the rules, under them, under them, without; so what drifts meets both
MBIT = Settings().network_mbit  # what a sandbox may have, as it is shipped
PORTS = (443, 2222)
ADDRESSES = [f"203.0.{n // 2}.{n % 2 * 128}/26" for n in range(RULES)]
NAMES = [NAME, *(f"*.h{n}.example.org" for n in range(RULES - 1))]
WITHIN_5_PERCENT = at_least(0.95)
# The least that a relay knows a server's first message by: until then it lets no second hello pass.
ANSWER = bytes.fromhex("1603030026 02000022 0303") + bytes(32)


def measure(bench: Bench) -> Iterator[Row]:
    """Changes of a running sandbox, then bytes and connections between namespaces."""
    yield from _changes(bench)
    if os.geteuid() == 0:
        yield from _throughput(bench.rounds)


def _changes(bench: Bench) -> Iterator[Row]:
    by_address, by_name, switch = Series(), Series(), Series()
    addresses = [f"203.0.{n // 250}.{n % 250}" for n in range(RULES)]
    with bench.rt.sandboxes.create(idle_timeout_seconds=0) as box:
        for _ in range(bench.rounds):
            by_address.time(lambda: box.egress.change(allow=addresses, deny=[]))
            by_name.time(lambda: box.egress.change(allow=NAMES))
            switch.time(lambda: box.egress.change(internet=False))
            box.egress.change(internet=True, allow=["*"])
    yield row(f"policy in force, {RULES} addresses", by_address, wanted=[at_most(100)])
    yield row(f"policy in force, {RULES} names", by_name, wanted=[at_most(100)])
    yield row("policy in force, internet off", switch, wanted=[at_most(100)])


def _throughput(rounds: int) -> Iterator[Row]:
    by_address = policy(True, ["203.0.113.0/24", *ADDRESSES[:-1]], [])
    by_name = policy(True, NAMES, [])
    one_name = policy(True, [NAME], [])
    with Between() as way:
        for name, rule, floor_rule, port, mbit, bounds in (
            (f"{RULES} addresses", by_address, OPEN, 2222, 0, [WITHIN_5_PERCENT]),
            (f"{RULES} names, other ports", by_name, OPEN, 2222, 0, [WITHIN_5_PERCENT]),
            (f"{RULES} names beside one, TCP 443", by_name, one_name, 443, 0, [WITHIN_5_PERCENT]),
            (
                f"{RULES} names, TCP 443, {MBIT} Mbit/s",
                by_name,
                OPEN,
                443,
                MBIT,
                [WITHIN_5_PERCENT],
            ),
            (f"{RULES} names, TCP 443, no limit", by_name, OPEN, 443, 0, []),
        ):
            way.limit(mbit)
            bare, ours, left = Series(), Series(), Series()
            without, under = (bare, floor_rule), (ours, rule)
            for _ in range(round(rounds * FOURS)):
                for series, one in (without, under, under, without):
                    way.load(one)
                    series.values.append(way.megabytes_a_second(port))
                left.values.append(sum(ours.values[-2:]) / sum(bare.values[-2:]))
            yield row(f"bytes out, {name}", ours, bare, unit="MB/s")
            yield row("… of those of the floor beside it", left, unit="share", wanted=bounds)
        bare, ours = Series(), Series()
        for _ in range(rounds):
            for series, one in ((bare, OPEN), (ours, by_name)):
                way.load(one)
                way.greet()
                for _ in range(10):
                    series.time(way.greet)
        yield row(f"hello answered on TCP 443, {RULES} names", ours, bare)


class Between:
    """A guest, the platform's rules, and a world that takes in all it is sent."""

    def __init__(self) -> None:
        tag = secrets.token_hex(2)
        self.guest, self.space, self.world = (f"rtb-{tag}-{part}" for part in ("g", "s", "w"))
        self._hello = _hello()
        self._mbit = 0

    def __enter__(self) -> Between:
        with ExitStack() as undo:
            for space in (self.guest, self.space, self.world):
                _sh(f"ip netns add {space}")
                undo.callback(_sh, f"ip netns del {space}")
                _sh(f"ip -n {space} link set lo up")
            self._cable(self.guest, "eth0", rules.GUEST_MAC, f"{rules.GUEST}/24")
            _sh(f"ip -n {self.space} link set tap0 address {rules.GATEWAY_MAC} up")
            _sh(f"ip -n {self.space} addr add {rules.GATEWAY}/24 dev tap0")
            _sh(f"ip -n {self.guest} route add default via {rules.GATEWAY}")
            self._cable(self.world, "net0", "52:54:00:00:00:01", "192.88.98.1/30", "out")
            _sh(f"ip -n {self.world} addr add {WORLD}/32 dev net0")
            _sh(f"ip -n {self.space} link set out up")
            _sh(f"ip -n {self.space} addr add 192.88.98.2/30 dev out")
            _sh(f"ip -n {self.space} route add default via 192.88.98.1")
            _sh(f"ip netns exec {self.space} sysctl -qw net.ipv4.ip_forward=1")
            self._nft(rules.guard(NO_LIMITS))
            self._loop = asyncio.new_event_loop()
            undo.callback(self._loop.close)
            thread = threading.Thread(target=self._loop.run_forever)
            thread.start()
            undo.callback(thread.join)
            undo.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            known = (IPv4Address(WORLD),)
            opening = Relay.open(self.space, 0x3FFF_FFFF, OPEN, lambda: known, lambda _: None)
            self._relay = self._do(opening)
            undo.callback(lambda: self._do(self._relay.close()))
            undo.enter_context(self._sinks())
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def load(self, rule: Policy) -> None:
        """Put a policy in force, with the name leading to the world."""
        known = [Known(IPv4Address(WORLD), 3600)] if rule.by_name else []
        self._nft(rules.namespace(rule, known))
        self._do(self._relay.tell(rule))

    def limit(self, mbit: int) -> None:
        """Hold both ways to a rate, by the platform's own queues; 0: do not."""
        tc = ["tc", "-n", self.space]
        if self._mbit:
            for device in (UPLINK, TAP):
                subprocess.run([*tc, "qdisc", "del", "dev", device, "root"], check=True)
        if mbit:
            subprocess.run([*tc, "-batch", "-"], input=slots.shaped(mbit).encode(), check=True)
        self._mbit = mbit

    def megabytes_a_second(self, port: int) -> float:
        """As fast as one connection goes out."""
        data = bytes(1 << 20)
        with self._in(self.guest, lambda: socket.create_connection((WORLD, port), 10)) as sock:
            sock.settimeout(10)
            sock.sendall(self._hello)
            assert sock.recv(len(ANSWER)) == ANSWER
            began = time.perf_counter()
            sent = 0
            while time.perf_counter() - began < SECONDS:
                sock.sendall(data)
                sent += 1
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1)  # all of it has arrived
            return sent / (time.perf_counter() - began)

    def greet(self) -> None:
        """Connect, say hello, and be answered."""
        with self._in(self.guest, lambda: socket.create_connection((WORLD, 443), 10)) as sock:
            sock.settimeout(10)
            sock.sendall(self._hello)
            assert sock.recv(len(ANSWER)) == ANSWER

    @contextmanager
    def _sinks(self) -> Iterator[None]:
        listeners = [
            self._in(self.world, lambda port=port: socket.create_server((WORLD, port)))
            for port in PORTS
        ]
        threads = [threading.Thread(target=_sink, args=(sock,)) for sock in listeners]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for sock, thread in zip(listeners, threads, strict=True):
                sock.shutdown(socket.SHUT_RDWR)
                thread.join()
                sock.close()

    def _cable(self, space: str, device: str, mac: str, own: str, end: str = "tap0") -> None:
        peer = f"peer name {end} netns {self.space}"
        _sh(f"ip -n {space} link add {device} address {mac} type veth {peer}")
        _sh(f"ip -n {space} addr add {own} dev {device}")
        _sh(f"ip -n {space} link set {device} up")

    def _nft(self, text: str) -> None:
        command = ["ip", "netns", "exec", self.space, "nft", "-f", "-"]
        subprocess.run(command, input=text.encode(), check=True)

    def _in(self, space: str, act: Callable[[], socket.socket]) -> socket.socket:
        return self._do(inside(space, act))

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


def _sink(listener: socket.socket) -> None:
    """Answer the beginning of each connection as a server does, and its end with a byte."""
    held = bytearray(1 << 20)
    with suppress(OSError):
        while True:
            peer, _ = listener.accept()
            with peer, suppress(OSError):
                peer.recv(65536)
                peer.sendall(ANSWER)
                while peer.recv_into(held):
                    pass
                peer.sendall(b"x")


def _hello() -> bytes:
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME).do_handshake()
    return outgoing.read()


def _sh(command: str) -> None:
    subprocess.run(command.split(), check=True)
