"""Public keys as OpenSSH writes them: one line, checked down to the curve, with its fingerprint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

MAX_BYTES = 16_384
LEAST_RSA_BITS = 2048

KINDS = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)

_LINE = re.compile(
    r"(?P<kind>\S+) (?P<blob>[A-Za-z0-9+/]+={0,2})(?: (?P<comment>[^\x00-\x1f\x7f]*))?"
)
_PRIVATE = re.compile(r"PRIVATE KEY|PuTTY-User-Key-File")
_PASTE = "paste the one line of a file such as ~/.ssh/id_ed25519.pub"


class BadKey(ValueError):
    """It is no key that opens anything. Neither text holds any of what was given."""

    def __init__(self, problem: str, hint: str = _PASTE) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. ``bits`` is the size of an RSA key."""

    kind: str
    blob: bytes
    comment: str
    bits: int | None

    @property
    def line(self) -> str:
        """As it stands in a file of authorized keys."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()} {self.comment}".rstrip()

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` shows it."""
        return f"SHA256:{base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip('=')}"


def parse(text: str) -> PublicKey:
    """The key in a line; options before its type are refused.

    Raises:
        BadKey: it is none, or one that is too weak.
    """
    if _PRIVATE.search(text):
        raise BadKey("is a private key", "it was not kept; paste the public one, of the .pub file")
    if "BEGIN SSH2 PUBLIC KEY" in text:
        raise BadKey("is not in the form of OpenSSH", "ssh-keygen -i -f FILE converts it")
    match = _LINE.fullmatch(text.strip(" \r\n"))
    if len(text) > MAX_BYTES or match is None:
        raise BadKey("not an OpenSSH public key")
    kind = match["kind"]
    _check_kind(kind)
    try:
        blob = base64.b64decode(match["blob"], validate=True)
        key = load_ssh_public_key(f"{kind} {match['blob']}".encode())
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise BadKey(f"not a whole {kind} key") from None
    bits = key.key_size if isinstance(key, RSAPublicKey) else None
    if bits is not None and bits < LEAST_RSA_BITS:
        raise BadKey(
            f"an RSA key of {bits} bits is too weak; {LEAST_RSA_BITS} are the least",
            "make a new one: ssh-keygen -t ed25519",
        )
    return PublicKey(kind, blob, match["comment"] or "", bits)


def _check_kind(kind: str) -> None:
    if kind in KINDS:
        return
    if kind.endswith("-cert-v01@openssh.com"):
        raise BadKey("is a certificate", "paste the key that it certifies")
    if kind == "ssh-dss":
        raise BadKey("DSA keys are too weak", "make a new one: ssh-keygen -t ed25519")
    raise BadKey("not an OpenSSH public key of a type that is known")
