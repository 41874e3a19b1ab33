"""The gateway's own keys, made once and kept in its folder: what it is known by, and what it vouches with.

People know the gateway by its host keys; sandboxes believe its authority. Every connection into a sandbox
shows a key that this process made at its start, certified for that one login.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from runtools.platform.kit.files import write_atomic

HOST_KINDS = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256"}
LOGIN_NAME = "root"
_AUTHORITY = "authority"


@dataclass(frozen=True, slots=True)
class GatewayKeys:
    """The keys of one gateway process."""

    host: tuple[asyncssh.SSHKey, ...] = field(repr=False)
    authority: asyncssh.SSHKey = field(repr=False)
    own: asyncssh.SSHKey = field(repr=False)

    @property
    def host_lines(self) -> list[str]:
        """The public host keys, as they stand in a file of known hosts."""
        return [line(key) for key in self.host]

    @property
    def authority_line(self) -> str:
        """What a sandbox is told to believe."""
        return line(self.authority)

    def certified(
        self, who: str, *, agents: bool
    ) -> tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]:
        """What to show a sandbox for one login; its log then says who came in.

        It has no end: the key that it certifies is gone with this process, and a sandbox's clock may
        stand anywhere.

        Args:
            who: who comes in.
            agents: whether the sandbox may use the agent of who comes in.
        """
        certificate = self.authority.generate_user_certificate(
            self.own,
            who,
            principals=[LOGIN_NAME],
            permit_x11_forwarding=False,
            permit_agent_forwarding=agents,
        )
        return self.own, certificate


def line(key: asyncssh.SSHKey) -> str:
    """The public half in one line, without a comment."""
    kind, blob = key.export_public_key("openssh").decode().split()[:2]
    return f"{kind} {blob}"


def load(folder: Path) -> GatewayKeys:
    """The keys that lie in the folder; those that do not are made."""
    return GatewayKeys(
        host=tuple(
            _kept(folder / f"ssh_host_{name}_key", kind) for name, kind in HOST_KINDS.items()
        ),
        authority=_kept(folder / _AUTHORITY, "ssh-ed25519"),
        own=asyncssh.generate_private_key("ssh-ed25519"),
    )


def _kept(file: Path, kind: str) -> asyncssh.SSHKey:
    if not file.exists():
        fresh = asyncssh.generate_private_key(kind)
        write_atomic(file, fresh.export_private_key("openssh"), mode=0o600)
    return asyncssh.import_private_key(file.read_bytes())
