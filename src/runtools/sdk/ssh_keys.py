"""SSH keys of the org."""

from __future__ import annotations

from runtools.sdk import wire
from runtools.sdk.shapes.ssh_keys import SshKey
from runtools.sdk.transport import AsyncTransport

_PAGE = 100


class AsyncSshKeys:
    """SSH keys: ``rt.ssh_keys``. `sandboxes.create(ssh_keys=[…])` takes their labels and ids."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def add(self, label: str, public_key: str, *, project_id: str | None = None) -> SshKey:
        """Register a public key.

        Args:
            label: unique in the org, e.g. ``laptop`` or ``ada@work``.
            public_key: one line, as in ``~/.ssh/id_ed25519.pub``.
            project_id: id or name of the project it lies in; default: the org's default one.

        Raises:
            InvalidRequest: it is no public key, or too weak.
            NameTaken: there is one of that label.
            Conflict: the org has this key already.
        """
        body = {"label": label, "publicKey": public_key, "projectId": project_id}
        return wire.shape(SshKey, (await self._transport.call("POST", "/ssh-keys", body=body)).data)

    async def list(self, *, project_id: str | None = None) -> list[SshKey]:
        """The org's keys (of a project) by label."""
        pages = self._transport.pages("/ssh-keys", [("projectId", project_id)], _PAGE)
        return [wire.shape(SshKey, item) async for item in pages]

    async def get(self, ref: str) -> SshKey:
        """The key of that id or label."""
        answer = await self._transport.call("GET", f"/ssh-keys/{wire.segment(ref)}")
        return wire.shape(SshKey, answer.data)

    async def remove(self, ref: str) -> None:
        """Remove a key by id or label. Sandboxes that were given it keep it."""
        await self._transport.call("DELETE", f"/ssh-keys/{wire.segment(ref)}")
