"""The process that carries a sandbox's connections to ports of HTTP and TLS where names rule.

It reads whom a connection says it is for, and carries it on to where it was going if the policy admits
that. It reads a stranger's bytes: so it has no privilege, no file and no other sandbox's bytes, and all
that it holds is bounded. One process serves one sandbox; it lives in the sandbox's namespace and ends
with the host part, which tells it the policy and hears of refusals on an open socket:

    → {"n": 1, "internet": true, "allow": [...], "deny": [...], "known": ["203.0.113.9", ...]}
                                                                      a policy; where its names have led,
                                                                      or null: nothing began under another
    ← {"n": 1}                                                        it is in force
    ← {"refused": ["not_allowed", "evil.net", "203.0.113.7", 443]}    a refusal
    ← {"more": ["too_many", 7000]}                                    so many were not told one by one

Started as ``python -m runtools.platform.host.net.relay NAMESPACE UID EMPTY_FOLDER LISTENER CONTROL``,
the last two being numbers of open files.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Collection
from ipaddress import IPv4Address
from typing import Any

from runtools.platform.core.egress import SHUT, Policy, policy
from runtools.platform.host.net import hello
from runtools.platform.host.net.enter import NAMESPACES, setns

FLOWS = 256
CONTROL_LIMIT = 1 << 20

_HELLO_SECONDS = 10.0
_DIAL_SECONDS = 10.0
_READS = 256  # in so many pieces a beginning may come
_BUFFER = 1 << 17
_BEFORE = 1 << 14  # pieces of what is read before a server has answered
# What the kernel holds of a flow while one side does not read (it keeps twice of that): without a bound of
# ours some megabytes. To the sandbox is no distance; from far away more is on its way.
NEAR_BUFFER = 1 << 16
_FAR_BUFFER = 1 << 17
_UNHEARD = 1 << 16  # refusals that the host part has not read yet, in bytes
_UNTOLD_SECONDS = 0.2
_KEEPALIVE_SECONDS = 60
_QUEUED = 512  # no more can have waited to be taken in
_ORIGINAL_DESTINATION = 80
_ABORT, _END = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
_NO_NEW_PRIVILEGES = 38
_MEMORY = 512 << 20
_FILES = 2 * FLOWS + 64


def bounded(sock: socket.socket, size: int) -> socket.socket:
    """Have the kernel hold no more than that of it, each way; what a listener takes in inherits it."""
    for way in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, way, size)
    return sock


class Refused(Exception):
    """A connection that goes nowhere, and why."""


class Flow:
    """One connection of the sandbox.

    Attributes:
        name: whom it says it is for, once that was read.
        judged: whether it was admitted.
    """

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        bounded(self.server, _FAR_BUFFER)
        self.name: str | None = None
        self.judged = False
        self.address, self.port = _destination(client)
        for sock in (client, self.server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
        self._at_close(_ABORT)  # whatever ends it, this process's own end among it

    def end(self) -> None:
        """Both sides have said all: what is on its way still arrives. Any other close is a reset."""
        self._at_close(_END)

    def _at_close(self, how: bytes) -> None:
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)

    def close(self) -> None:
        """Close both sides."""
        self.client.close()
        self.server.close()


class Relay:
    """Carries what the policy admits."""

    def __init__(self, listener: socket.socket, control: asyncio.StreamWriter) -> None:
        self._listener = listener
        self._control = control
        self._policy = SHUT
        self._flows: dict[Flow, asyncio.Task[None]] = {}
        self._untold: Counter[str] = Counter()
        self._telling: asyncio.Task[None] | None = None

    async def judge(self, new: Policy, known: Collection[IPv4Address] | None) -> None:
        """Put a policy in force; when it returns, connections that it does not admit are cut.

        ``known``: where names that it admits have led. What began under another policy may go nowhere
        else, whatever name it says or is yet to say; None: nothing has.
        """
        self._policy = new
        self._take_in_all()
        cut = []
        for flow, task in self._flows.items():
            if not _goes_on(flow, new, known) and not task.cancelling():
                self._refuse(self._objection(), flow)
                task.cancel()
                cut.append(task)
        if cut:
            await asyncio.wait(cut)

    async def serve(self) -> None:
        """Take in connections for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self._listener)
            except OSError:  # it went away before it was taken in, or there is no file left
                await asyncio.sleep(0.01)
                continue
            self._take_in(client)

    def _take_in_all(self) -> None:
        """Take in what has begun so far and waits."""
        for _ in range(_QUEUED):
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                continue
            client.setblocking(False)
            self._take_in(client)

    def _take_in(self, client: socket.socket) -> None:
        try:
            flow = Flow(client)
        except OSError:
            client.close()
            return
        if len(self._flows) >= FLOWS:
            self._refuse("too_many", flow)
            flow.close()
            return
        self._flows[flow] = task = asyncio.create_task(self._handle(flow))
        task.add_done_callback(lambda _: self._let_go(flow))

    def _let_go(self, flow: Flow) -> None:
        flow.close()
        del self._flows[flow]

    async def _handle(self, flow: Flow) -> None:
        try:
            await self._carry(flow, await self._admitted(flow))
            flow.end()
        except Refused as exc:
            self._refuse(str(exc), flow)
        except hello.Unreadable:
            self._refuse("unreadable", flow)
        except hello.Encrypted as exc:
            flow.name = exc.name
            self._refuse("encrypted_hello", flow)
        except (OSError, TimeoutError):
            pass  # one side went away, or there is no other

    def _objection(self) -> str:
        return "not_allowed" if self._policy.internet else "internet_off"

    async def _admitted(self, flow: Flow) -> hello.Hello:
        """The beginning of a connection that the policy admits."""
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                found = await _hello(flow.client)
        except TimeoutError:
            raise Refused("unreadable") from None
        flow.name, flow.judged = found.name, True
        if not self._policy.admits(flow.address, flow.name):
            raise Refused(self._objection())
        return found

    async def _carry(self, flow: Flow, begun: hello.Hello) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_DIAL_SECONDS):
            await loop.sock_connect(flow.server, (str(flow.address), flow.port))
        await loop.sock_sendall(flow.server, begun.first)
        if begun.rest is None:
            ways = [_pump(flow.client, flow.server), _pump(flow.server, flow.client)]
        else:
            again: asyncio.Future[bool] = loop.create_future()
            ways = [_say(flow, begun.rest, again), _answer(flow, again)]
        pumps = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(
                *pumps, return_exceptions=True
            )  # then nobody waits at their sockets

    def _refuse(self, reason: str, flow: Flow) -> None:
        if self._control.transport.get_write_buffer_size() < _UNHEARD:
            self._tell({"refused": [reason, flow.name, str(flow.address), flow.port]})
            return
        self._untold[reason] += 1
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_later())

    async def _tell_later(self) -> None:
        """Tell how many could not be told one by one, once the host part has read what lies there."""
        while self._control.transport.get_write_buffer_size() >= _UNHEARD // 2:
            await asyncio.sleep(_UNTOLD_SECONDS)
        self._telling = None
        for reason, times in self._untold.items():
            self._tell({"more": [reason, times]})
        self._untold.clear()

    def _tell(self, said: dict[str, Any]) -> None:
        self._control.write(json.dumps(said).encode() + b"\n")


def _destination(client: socket.socket) -> tuple[IPv4Address, int]:
    """Where a connection was going when it was brought here."""
    found = client.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, 16)
    return IPv4Address(found[4:8]), int.from_bytes(found[2:4], "big")


def _goes_on(flow: Flow, policy: Policy, known: Collection[IPv4Address] | None) -> bool:
    """Whether a connection may live on under a policy; one that has said nothing yet is judged again."""
    led = known is None or flow.address in known
    if not led and not policy.admits_address(flow.address):
        return False
    return not flow.judged or policy.admits(flow.address, flow.name)


async def _hello(client: socket.socket) -> hello.Hello:
    loop = asyncio.get_running_loop()
    data = b""
    for _ in range(_READS):
        piece = await loop.sock_recv(client, hello.MAX_BYTES - len(data))
        data += piece
        found = hello.read(data)
        if found is not None:
            return found
        if not piece:
            break
    raise hello.Unreadable("it ended, or came in crumbs")


async def _say(flow: Flow, held: bytes, again: asyncio.Future[bool]) -> None:
    """Carry what a client says behind its hello. A second one must be for the same name.

    No handshake goes on before the server has said whether it wants one: a hello that came too early would
    be read once it does. More than one it may not want.

    Raises:
        Unreadable, Encrypted: a second hello that could be for another name.
    """
    loop = asyncio.get_running_loop()
    while not again.done() or again.result():
        one = hello.record(held)
        if one is not None and one[0] != hello.HANDSHAKE:
            await loop.sock_sendall(flow.server, one)
            held = held[len(one) :]
            continue
        if one is not None:
            if not await again:
                break
            second = hello.read(held)
            if second is not None and second.name == flow.name:
                break
            if second is not None:
                raise hello.Unreadable("a second hello for another name")
        piece = await loop.sock_recv(flow.client, _BEFORE)
        if not piece:
            break
        held += piece
    await loop.sock_sendall(flow.server, held)
    await _pump(flow.client, flow.server)


async def _answer(flow: Flow, again: asyncio.Future[bool]) -> None:
    """Carry what a server says, and tell whether it begins with the wish for a second hello."""
    loop = asyncio.get_running_loop()
    said = b""
    while not again.done():
        piece = await loop.sock_recv(flow.server, _BEFORE)
        said += piece
        wish = hello.asks_again(said) if piece else False
        if wish is not None:
            again.set_result(wish)
        await loop.sock_sendall(flow.client, piece)
    await _pump(flow.server, flow.client)


async def _pump(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way to their end."""
    loop = asyncio.get_running_loop()
    held = memoryview(bytearray(_BUFFER))
    while size := await loop.sock_recv_into(source, held):
        await loop.sock_sendall(target, held[:size])
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


async def _run(listener: socket.socket, control: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=control, limit=CONTROL_LIMIT)
    relay = Relay(listener, writer)
    serving = asyncio.create_task(relay.serve())
    while line := await reader.readline():
        said: dict[str, Any] = json.loads(line)
        known = None if said["known"] is None else frozenset(map(IPv4Address, said["known"]))
        await relay.judge(policy(said["internet"], said["allow"], said["deny"]), known)
        writer.write(json.dumps({"n": said["n"]}).encode() + b"\n")
    serving.cancel()


def _give_up_privileges(uid: int, empty: str) -> None:
    """Be nobody, with nothing to read, nowhere to write and no way back."""
    for what, limit in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    os.chroot(empty)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")


def main(namespace: str, uid: int, empty: str, listener: int, control: int) -> None:
    """Serve until the host part closes the control socket."""
    fd = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
    setns(fd)
    os.close(fd)
    listening, controlling = socket.socket(fileno=listener), socket.socket(fileno=control)
    for sock in (listening, controlling):
        sock.setblocking(False)
    "x".encode("idna")  # a codec that is loaded on first use, while there are files to load it from
    _give_up_privileges(uid, empty)
    asyncio.run(_run(listening, controlling))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
