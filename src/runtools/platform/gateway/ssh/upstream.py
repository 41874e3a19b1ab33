"""A connection to the SSH server inside a sandbox, over a stream of `Reach`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import asyncssh

from runtools.errors import GuestMisbehaved, GuestUnreachable
from runtools.platform.core.ports.reach import Reach
from runtools.platform.gateway.ssh.keys import LOGIN_NAME, GatewayKeys
from runtools.platform.gateway.ssh.wires import ClientWire, SandboxWire

PORT = 22
CIPHERS = ("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com")
# As OpenSSH's for the cipher that comes first. After a gigabyte, which is asyncssh's own, OpenSSH's clients
# begin an exchange, too: their first cipher is another.
REKEY_BYTES = 2**36
# Not those whose work is great (groups of Diffie-Hellman, RSA): one thread does it for all.
EXCHANGES = "-diffie-hellman-*,rsa*"
LOGIN_SECONDS = 60.0  # under emulation a login may take seconds
_NEVER = 10**9  # new session keys by time would be traffic that wakes who sleeps


async def connect(
    reach: Reach,
    keys: GatewayKeys,
    sandbox_id: str,
    host_keys: Sequence[str],
    who: str,
    client: ClientWire,
    streams: set[SandboxWire],
    *,
    agents: bool,
    wakes: bool,
    made: Callable[[asyncssh.SSHClientConnection, SandboxWire], None],
    lost: Callable[[], None],
) -> asyncssh.SSHClientConnection:
    """Log in at a sandbox.

    Args:
        host_keys: what it must show.
        who: what its log will say of who came.
        client: whom it is for.
        streams: all that are open.
        agents: whether it may use the client's agent.
        wakes: see `Reach`.
        made: is called with the connection and its wire, before anything was sent.
        lost: is called when the connection is gone.

    Raises:
        GuestMisbehaved: it has other host keys than those that its agent told, or lets nobody in.
        GuestUnreachable: it broke off.
        RunToolsError: whatever `Reach` raises.
    """
    trusted = [asyncssh.import_public_key(line) for line in host_keys]
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            return await asyncssh.connect(
                sandbox_id,
                PORT,
                tunnel=_Tunnel(partial(reach.attach, wakes=wakes), client, streams, made),
                client_factory=lambda: _Inside(lost),
                config=None,
                username=LOGIN_NAME,
                client_keys=[keys.certified(who, agents=agents)],
                known_hosts=(trusted, [], []),
                agent_path=None,
                preferred_auth="publickey",
                kex_algs=EXCHANGES,
                encryption_algs=list(CIPHERS),
                compression_algs=["none"],
                rekey_bytes=REKEY_BYTES,
                rekey_seconds=_NEVER,
                connect_timeout=None,
                login_timeout=0,
            )
    except asyncssh.HostKeyNotVerifiable as exc:
        raise GuestMisbehaved(
            f"{sandbox_id} shows another host key than its own",
            hint="were its host keys changed a moment ago? Try again",
        ) from exc
    except asyncssh.PermissionDenied as exc:
        raise GuestMisbehaved(
            f"the SSH server of {sandbox_id} does not let the gateway in",
            hint="was its configuration (/etc/ssh) changed? `runtools sandbox shell` gets you in",
        ) from exc
    except (asyncssh.Error, OSError, TimeoutError) as exc:
        raise GuestUnreachable(
            f"the SSH server of {sandbox_id} does not answer: {str(exc) or type(exc).__name__}",
            hint="`runtools sandbox shell` gets you in without it",
        ) from exc


class _Tunnel:
    """What asyncssh asks for a connection, and gets a stream into the sandbox as."""

    def __init__(
        self,
        attach: Callable[[str, int, SandboxWire], Awaitable[object]],
        client: ClientWire,
        streams: set[SandboxWire],
        made: Callable[[asyncssh.SSHClientConnection, SandboxWire], None],
    ) -> None:
        self._attach = attach
        self._client = client
        self._streams = streams
        self._made = made

    async def create_connection(
        self, factory: Callable[[], asyncssh.SSHClientConnection], sandbox_id: str, port: int
    ) -> tuple[None, asyncssh.SSHClientConnection]:
        """Bind a stream to a connection."""
        connection = factory()
        wire = SandboxWire(connection, self._client, self._streams)
        self._made(connection, wire)
        await self._attach(sandbox_id, port, wire)
        return None, connection


class _Inside(asyncssh.SSHClient):
    """Hears when the connection is gone."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        """It is."""
        self._lost()
