"""A sandbox by SSH."""

from __future__ import annotations

from runtools.sdk import wire
from runtools.sdk.shapes.ssh_access import SshAccess
from runtools.sdk.transport import AsyncTransport


class AsyncSsh:
    """How a sandbox is reached by SSH: ``sandbox.ssh``."""

    def __init__(self, transport: AsyncTransport, path: str) -> None:
        self._transport = transport
        self._path = f"{path}/ssh"

    async def access(self) -> SshAccess:
        """User name, host and port, and the host keys of the gateway there."""
        return wire.shape(SshAccess, (await self._transport.call("GET", self._path)).data)

    async def allow(self, public_key: str, *, ttl_seconds: int | None = None) -> SshAccess:
        """Let a public key into this sandbox alone.

        It opens for as long as who lets it in may act on the sandbox: it ends with the API key, the session
        or the membership, and with the sandbox.

        Args:
            public_key: one line, as in ``~/.ssh/id_ed25519.pub``.
            ttl_seconds: for how long one can log in with it; sessions go on.
        """
        body = {"publicKey": public_key, "ttlSeconds": ttl_seconds}
        answer = await self._transport.call("POST", self._path, body=body)
        return wire.shape(SshAccess, answer.data)
