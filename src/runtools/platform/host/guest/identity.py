"""Who a machine is to be after a restore, and the gate: nobody gets one that was not renewed.

Everything is made on the host, where entropy is real, and handed to the agent. The gate compares what
the agent read back with what was ordered. It guards against a renewal that was left out or failed; a
guest that lies about itself harms itself alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from runtools.errors import GuestMisbehaved

CLOCK_TOLERANCE_SECONDS: Final = 5.0
_ENTROPY_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class HostKey:
    """One SSH host key, in OpenSSH's formats."""

    private: str = field(repr=False)
    public: str

    @property
    def blob(self) -> str:
        """The public key itself, without type and comment."""
        return self.public.split()[1]


@dataclass(frozen=True, slots=True)
class Identity:
    """What one renewal makes of a machine.

    Attributes:
        fresh: whether it becomes a machine of its own. One that only goes on after a pause gets the
            clock and new entropy; the fields below ``entropy`` are then empty.
        nonce: what the evidence must repeat.
        entropy: seeds the kernel's generator.
        token: what the agent asks of its callers from then on.
        env: merged into every command's environment.
        ssh_keys: public keys that may log in as root; none leaves those inside as they are.
        password_hash: root's, in crypt(5) form; None leaves it as it is.
    """

    fresh: bool
    nonce: str
    entropy: bytes = field(repr=False)
    token: str = field(default="", repr=False)
    machine_id: str = ""
    hostname: str = ""
    host_keys: Mapping[str, HostKey] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ssh_keys: Sequence[str] = ()
    password_hash: str | None = field(default=None, repr=False)

    @classmethod
    def make_again(cls) -> Identity:
        """What a machine gets that stays who it is: the time, and new entropy."""
        return cls(
            fresh=False, nonce=secrets.token_hex(16), entropy=secrets.token_bytes(_ENTROPY_BYTES)
        )

    @classmethod
    def make(
        cls,
        *,
        hostname: str,
        env: Mapping[str, str],
        ssh_keys: Sequence[str],
        password_hash: str | None,
        fresh: bool,
    ) -> Identity:
        """An identity that no other machine has. Costs a few milliseconds when ``fresh``."""
        if not fresh:
            return cls.make_again()
        return cls(
            fresh=True,
            nonce=secrets.token_hex(16),
            entropy=secrets.token_bytes(_ENTROPY_BYTES),
            token=secrets.token_urlsafe(32),
            machine_id=secrets.token_hex(16),
            hostname=hostname,
            host_keys={
                "ed25519": _host_key(ed25519.Ed25519PrivateKey.generate(), hostname),
                "ecdsa": _host_key(ec.generate_private_key(ec.SECP256R1()), hostname),
            },
            env=dict(env),
            ssh_keys=tuple(ssh_keys),
            password_hash=password_hash,
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the agent read back after a renewal.

    Attributes:
        machine: False where the agent stands in for a machine and shares the kernel around it.
        host_keys: the public keys that belong to the private ones that lie there.
        skipped: what a stand-in could not do.
    """

    nonce: str
    machine: bool
    clock: float
    reseeded: bool
    machine_id: str
    hostname: str
    host_keys: Mapping[str, str]
    skipped: Sequence[str]


def check(identity: Identity, evidence: Evidence, now: datetime) -> None:
    """The gate.

    Raises:
        GuestMisbehaved: something was not renewed; ``details["notRenewed"]`` names what.
    """
    wrong = []
    if evidence.nonce != identity.nonce:
        wrong.append("answer")
    if not abs(evidence.clock - now.timestamp()) <= CLOCK_TOLERANCE_SECONDS:
        wrong.append("clock")
    # A stand-in's kernel is the host's, which was never copied.
    if not evidence.reseeded and evidence.machine:
        wrong.append("entropy")
    if identity.fresh:
        if evidence.machine_id != identity.machine_id:
            wrong.append("machine-id")
        if evidence.hostname != identity.hostname:
            wrong.append("hostname")
        wanted = {kind: key.blob for kind, key in identity.host_keys.items()}
        if dict(evidence.host_keys) != wanted:
            wrong.append("ssh host keys")
    if wrong:
        raise GuestMisbehaved(
            f"the sandbox was not renewed after its restore: {', '.join(wrong)}",
            hint="nobody is given it; build the template anew if this happens again",
            details={"notRenewed": wrong},
        )


def _host_key(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, name: str) -> HostKey:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return HostKey(private.decode(), f"{public.decode()} root@{name}\n")
