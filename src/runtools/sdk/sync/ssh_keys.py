# Generated from sdk/ssh_keys.py by scripts/generate_sync.py: edit that, then run it.
"""SSH keys of the org."""

from __future__ import annotations

from runtools.sdk import wire
from runtools.sdk.shapes.ssh_keys import SshKey
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class SshKeys:
    """SSH keys: ``rt.ssh_keys``. `sandboxes.create(ssh_keys=[…])` takes their labels and ids."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(self, label: str, public_key: str, *, project_id: str | None = None) -> SshKey:
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
        return wire.shape(SshKey, (self._transport.call("POST", "/ssh-keys", body=body)).data)

    def list(self, *, project_id: str | None = None) -> list[SshKey]:
        """The org's keys (of a project) by label."""
        pages = self._transport.pages("/ssh-keys", [("projectId", project_id)], _PAGE)
        return [wire.shape(SshKey, item) for item in pages]

    def get(self, ref: str) -> SshKey:
        """The key of that id or label."""
        answer = self._transport.call("GET", f"/ssh-keys/{wire.segment(ref)}")
        return wire.shape(SshKey, answer.data)

    def remove(self, ref: str) -> None:
        """Remove a key by id or label. Sandboxes that were given it keep it."""
        self._transport.call("DELETE", f"/ssh-keys/{wire.segment(ref)}")
