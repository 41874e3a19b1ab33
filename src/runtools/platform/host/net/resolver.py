"""The platform's resolver: what sandboxes ask at 10.0.2.2:53 is asked of the host's own nameservers.

Its sockets lie in the namespaces, its questions leave from the host: a nameserver on a private address
serves sandboxes that cannot reach it. It caches nothing and changes nothing but ids. What it does for
one sandbox is bounded in size, in rate and in number under way.

It asks only for names that the sandbox's policy admits, and gives no answer with an address where no
sandbox may go. Where names rule, it holds back the records with keys for encrypted hellos, and what it
answers is pinned before the sandbox hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Protocol

from runtools.platform.core.egress import SHUT, Policy
from runtools.platform.core.ports.network import Refusal
from runtools.platform.host.net import rules, wire
from runtools.platform.host.net.enter import inside
from runtools.sdk.shapes.egress import RefusalReason

log = logging.getLogger(__name__)

PORT: Final = 53

_UNDER_WAY = 64
_RATE = 100.0  # queries a second
_BURST = 300.0
_CONNECTIONS = 16
_IDLE_SECONDS = 10.0
_ANSWER_SECONDS = 3.0
_ROUNDS = 2
_TELL_SECONDS = 1.0  # how long what was dropped is counted before it is told

# Types that can carry the key of an encrypted hello.
_SERVICES = {wire.SVCB, wire.HTTPS, wire.ANY}


class Owner(Protocol):
    """Whose desk it is."""

    def refuse(self, refusal: Refusal) -> None:
        """Hear of a question that was refused."""
        ...

    async def learn(self, name: str, addresses: list[IPv4Address], ttl: int) -> None:
        """Note that a name led to addresses, before the sandbox is told.

        Raises:
            TooManyPins: no more can be noted.
            OSError: the kernel refuses to.
        """
        ...


class TooManyPins(Exception):
    """The sandbox has been led to more addresses than one may be."""


class Upstreams:
    """The host's nameservers, read again whenever their file has changed."""

    def __init__(self, file: Path = Path("/etc/resolv.conf")) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def servers(self) -> tuple[str, ...]:
        """Addresses in the order in which they are to be asked."""
        try:
            stat = self._file.stat()
        except OSError:
            return ()
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp:
            self._stamp, self._servers = stamp, parse(self._file.read_text(errors="replace"))
        return self._servers


def parse(text: str) -> tuple[str, ...]:
    """The nameservers of a resolv.conf; those that are no address are left out."""
    found = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(OSError):
                socket.getaddrinfo(words[1], PORT, flags=socket.AI_NUMERICHOST)
                found.append(words[1])
    return tuple(found)


async def resolve(query: bytes, servers: tuple[str, ...], *, stream: bool) -> bytes:
    """Have a valid query answered by one of the servers; SERVFAIL where none does."""
    for server in servers * _ROUNDS:
        fresh = wire.with_id(query, secrets.randbelow(1 << 16))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reply = await (_by_tcp(fresh, server) if stream else _by_udp(fresh, server))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            continue
        return wire.with_id(reply, wire.ident(query))
    return wire.failure(query, wire.SERVFAIL)


async def _by_udp(query: bytes, server: str) -> bytes:
    """Ask from a port of its own, which hears that server alone; what is no answer is passed over."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, (server, PORT))
        await loop.sock_sendall(sock, query)
        while True:
            reply = await loop.sock_recv(sock, wire.MAX_TCP)
            if wire.answers(reply, query):
                return reply


async def _by_tcp(query: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(struct.pack(">H", len(query)) + query)
        await writer.drain()
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        reply = await reader.readexactly(length)
        if not wire.answers(reply, query):
            raise OSError("an answer to something else")
        return reply
    finally:
        writer.transport.abort()  # nothing more is sent, also when it was given up


@dataclass(slots=True)
class Allowance:
    """How much one sandbox may ask: a bucket of tokens that fills at a rate."""

    now: Callable[[], float]
    tokens: float = _BURST
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.at = self.now()

    def take(self) -> bool:
        """Whether one more is allowed at this moment."""
        now = self.now()
        self.tokens = min(_BURST, self.tokens + (now - self.at) * _RATE)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Desk:
    """The resolver's sockets in one namespace. Closed to questions until `admit` says otherwise."""

    def __init__(self, upstreams: Upstreams, owner: Owner) -> None:
        self._upstreams = upstreams
        self._owner = owner
        self._policy = SHUT
        self._under_way: set[asyncio.Task[None]] = set()
        self._asking: dict[asyncio.Timeout, str | None] = {}
        self._connections = 0
        self._dropped = 0
        self._telling: asyncio.TimerHandle | None = None
        self._allowance = Allowance(asyncio.get_running_loop().time)
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    @classmethod
    async def open(cls, namespace: str, upstreams: Upstreams, owner: Owner) -> Desk:
        """Listen inside a namespace.

        Raises:
            OSError: it is not there, or somebody listens already.
        """
        desk = cls(upstreams, owner)
        udp, tcp = await inside(namespace, _listen)
        try:
            loop = asyncio.get_running_loop()
            desk._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(desk), sock=udp)
            desk._tcp = await asyncio.start_server(desk._converse, sock=tcp)
        except BaseException:
            udp.close()
            tcp.close()
            await desk.close()
            raise
        return desk

    def admit(self, policy: Policy) -> None:
        """Answer the questions that a policy admits from now on; others are asked of nobody any more."""
        self._policy = policy
        for question, name in [*self._asking.items()]:
            if self._objection(name) is not None:
                del self._asking[question]
                question.reschedule(0)

    async def close(self) -> None:
        """Close all sockets in the namespace, which lives for as long as one is open."""
        if self._udp is not None:
            self._udp.abort()
        if self._tcp is not None:
            self._tcp.close()
        self._tell()
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the next round of the loop

    async def answer(self, query: bytes, *, stream: bool) -> bytes | None:
        """The answer to a message from the sandbox; None to what deserves none."""
        if not self._allowance.take():
            self._drop()
            return None
        if not wire.is_query(query):
            return None
        name = wire.name(query)
        reason = self._objection(name)
        if reason is not None:
            return self._refuse(query, name, reason)
        if self._policy.by_name and wire.kind(query) in _SERVICES:
            return wire.failure(query, wire.NO_ERROR)
        reply = wire.failure(query, wire.SERVFAIL)
        with contextlib.suppress(TimeoutError):  # the policy objects to it meanwhile
            async with asyncio.timeout(None) as question:
                self._asking[question] = name
                try:
                    reply = await resolve(query, self._upstreams.servers(), stream=stream)
                finally:
                    self._asking.pop(question, None)
        return await self._checked(query, name, reply)

    async def _checked(self, query: bytes, name: str | None, reply: bytes) -> bytes:
        """A reply as the sandbox may have it; the policy may have changed meanwhile."""
        reason = self._objection(name)
        if reason is not None:
            return self._refuse(query, name, reason)
        try:
            found = wire.read(reply)
        except wire.BadMessage:
            return wire.failure(query, wire.SERVFAIL)
        if any(rules.is_closed(address) for address in found.addresses):
            return self._refuse(query, name, "private_answer")
        if self._policy.by_name and found.has_services:
            return wire.failure(query, wire.NO_ERROR)
        leads_to = [one for one in found.addresses if isinstance(one, IPv4Address)]
        if name is not None and leads_to:
            try:
                await self._owner.learn(name, leads_to, found.ttl)
            except TooManyPins:
                return self._refuse(query, name, "too_many")
            except OSError as exc:
                log.warning("where %s leads cannot be noted: %s", name, exc)
                return wire.failure(query, wire.SERVFAIL)
        return reply

    def _objection(self, name: str | None) -> RefusalReason | None:
        policy = self._policy
        if not policy.internet:
            return "internet_off"
        admitted = policy.admits_riddles if name is None else policy.admits_name(name)
        return None if admitted else "not_allowed"

    def _refuse(self, query: bytes, name: str | None, reason: RefusalReason) -> bytes:
        self._owner.refuse(Refusal(reason, "dns", name))
        return wire.failure(query, wire.REFUSED)

    def _drop(self) -> None:
        """Too many come to look at each: they are counted, and told of together."""
        self._dropped += 1
        if self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(_TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
            self._owner.refuse(Refusal("too_many", "dns", times=self._dropped))
            self._dropped = 0

    def received(self, query: bytes, sender: tuple[str, int]) -> None:
        """A datagram from the sandbox."""
        if len(query) > wire.MAX_UDP:
            return  # no question has that size
        if len(self._under_way) >= _UNDER_WAY:
            self._drop()
            return
        self._start(self._reply(query, sender))

    async def _reply(self, query: bytes, sender: tuple[str, int]) -> None:
        reply = await self.answer(query, stream=False)
        if reply is not None and self._udp is not None:
            self._udp.sendto(reply, sender)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs us in one
        if self._connections >= _CONNECTIONS:
            self._drop()
            writer.transport.abort()
            return
        self._connections += 1
        self._under_way.add(task)
        try:
            await self._queries(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the guest went away or dawdles
        finally:
            self._connections -= 1
            self._under_way.discard(task)
            writer.transport.abort()

    async def _queries(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                query = await reader.readexactly(length)
            reply = await self.answer(query, stream=True)
            if reply is None:
                return
            async with asyncio.timeout(_IDLE_SECONDS):
                writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._desk.received(data, addr)


def _listen() -> tuple[socket.socket, socket.socket]:
    """The sockets of a desk; to be called inside its namespace."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (udp, tcp):
            sock.bind((rules.GATEWAY, PORT))
        tcp.listen(_CONNECTIONS)
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp
