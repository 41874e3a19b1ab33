"""The host's side of a relay: starts the process, tells it the policy, hears of refusals.

What comes from the process is bounded and checked: it has read a stranger's bytes. Should it end by
itself it is started again; meanwhile connections wait for it, and nothing passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast, get_args

from runtools.platform.core.egress import Policy, domain
from runtools.platform.core.ports.network import Refusal, untold
from runtools.platform.host.net import relay, rules
from runtools.platform.host.net.enter import inside
from runtools.platform.kit import process
from runtools.sdk.shapes.egress import RefusalReason

log = logging.getLogger(__name__)

_BACKLOG = 128
_ANSWER_SECONDS = 2.0
_AGAIN_SECONDS = 0.5
_TAKEN_SECONDS = 5.0
_MOST_UNTOLD = 1 << 40
# What a relay sees: an empty folder that nobody can write to.
_EMPTY = Path("/run/runtools-empty")


class RelayLost(Exception):
    """The process does not answer."""


class Relay:
    """One slot's relay, from `open` to `close`."""

    def __init__(
        self,
        namespace: str,
        uid: int,
        listener: socket.socket,
        policy: Policy,
        known: Callable[[], Iterable[IPv4Address]],
        refused: Callable[[Refusal], None],
    ) -> None:
        self._namespace = namespace
        self._uid = uid
        self._listener = listener
        self._policy = policy
        self._known = known
        self._refused = refused
        self._n = 1
        self._heard = 0
        self._news = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._keeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        namespace: str,
        uid: int,
        policy: Policy,
        known: Callable[[], Iterable[IPv4Address]],
        refused: Callable[[Refusal], None],
    ) -> Relay:
        """Listen, and begin to start the process; connections wait for it.

        ``known`` says where names that the policy in force admits have led.

        Raises:
            OSError: it cannot listen there.
        """
        _EMPTY.mkdir(mode=0o555, exist_ok=True)
        made = cls(namespace, uid, await _listener(namespace), policy, known, refused)
        made._keeper = asyncio.create_task(made._keep(), name=f"relay of {namespace}")
        return made

    async def tell(self, policy: Policy) -> None:
        """Have a policy in force whose rules are: connections that it does not admit are cut.

        Raises:
            RelayLost: nobody says that it is.
        """
        self._policy = policy
        self._n += 1
        wanted = self._n
        if self._writer is None:
            return  # it is being started, has carried nothing, and will be told first of all
        self._writer.write(self._said())
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while self._heard < wanted and self._writer is not None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise RelayLost(f"the relay of {self._namespace} does not answer") from None

    async def close(self) -> None:
        """End the process and with it all its connections."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._listener.close()

    def _said(self) -> bytes:
        # Before the first change nothing can have begun under another policy (after a restart of the
        # platform nobody knows where names had led, and the rules do), nor can it once a process has said
        # that this one is in force: what waits for the next has begun since, and maybe where a name leads
        # that is asked for only now, while it starts.
        known = None
        if self._n > 1 and self._heard < self._n:
            known = [str(address) for address in self._known()]
        said = {
            "n": self._n,
            "internet": self._policy.internet,
            "allow": self._policy.allow,
            "deny": self._policy.deny,
            "known": known,
        }
        return json.dumps(said).encode() + b"\n"

    async def _keep(self) -> None:
        while True:
            try:
                await self._live()
            except (OSError, ValueError, asyncio.IncompleteReadError) as exc:
                log.warning("the relay of %s: %s", self._namespace, exc)
            except Exception:
                # The edge of a loop that must not end, whatever the process says.
                log.exception("the relay of %s", self._namespace)
            log.warning("the relay of %s ended and is started again", self._namespace)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _live(self) -> None:
        """One life of the process, until it ends."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            words = [sys.executable, "-I", "-m", relay.__name__, self._namespace, str(self._uid)]
            fds = (self._listener.fileno(), theirs.fileno())
            child = await process.start_child([*words, str(_EMPTY), *map(str, fds)], pass_fds=fds)
            try:
                theirs.close()
                await self._converse(ours)
            finally:
                self._writer = None
                self._news.set()
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    async def _converse(self, control: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=control, limit=relay.CONTROL_LIMIT)
        try:
            writer.write(self._said())
            self._writer = writer
            while line := await reader.readline():
                self._hear(line)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)  # the transport closes its socket in the next round of the loop

    def _hear(self, line: bytes) -> None:
        match json.loads(line):
            case {"n": int(n)} if n <= self._n:
                self._heard = max(self._heard, n)
                self._news.set()
            case {"more": [str(reason), int(times)]} if 0 < times <= _MOST_UNTOLD:
                self._refused(untold(_reason(reason), times))
            case {"refused": [str(reason), str() | None as name, str(address), int(port)]}:
                if (name is not None and domain(name) != name) or not 0 <= port < 1 << 16:
                    raise ValueError(f"a refusal of {str(name)[:40]!r} at port {port}")
                there = str(IPv4Address(address))
                self._refused(Refusal(_reason(reason), "tcp", name, there, port))
            case _:
                raise ValueError(f"it says {line[:40]!r}")


def _reason(text: str) -> RefusalReason:
    for reason in get_args(RefusalReason):
        if reason == text:
            return cast(RefusalReason, reason)
    raise ValueError(f"an unknown reason {text[:40]!r}")


async def _listener(namespace: str) -> socket.socket:
    """Listen in the namespace; a relay of before may take a moment to be gone."""

    def listening() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            relay.bounded(sock, relay.NEAR_BUFFER)
            sock.bind((rules.GATEWAY, rules.RELAY_PORT))
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock

    async with asyncio.timeout(_TAKEN_SECONDS):
        while True:
            try:
                return await inside(namespace, listening)
            except OSError:
                if not Path("/run/netns", namespace).exists():
                    raise
            await asyncio.sleep(0.05)
