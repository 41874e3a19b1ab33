"""Sealing values with a master key: AES-256-GCM, a fresh IV each, bound to the place they belong to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtools.errors import InvalidRequest

KEY_BYTES = 32
_IV_BYTES = 12
_TAG_BYTES = 16


class Unreadable(Exception):
    """A sealed value does not open: another key, another place, or it was changed."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """32 bytes that seal, and the name by which the database knows them."""

    id: str
    material: bytes = field(repr=False)

    @classmethod
    def of(cls, material: bytes) -> MasterKey:
        """The key of these bytes. Its id tells nothing of them."""
        told = hmac.new(material, b"runtools master key", hashlib.sha256).hexdigest()[:16]
        return cls(told, material)

    @classmethod
    def new(cls) -> MasterKey:
        """A fresh key."""
        return cls.of(os.urandom(KEY_BYTES))

    def text(self) -> str:
        """The form in which it is kept: base64."""
        return base64.b64encode(self.material).decode()

    def seal(self, value: str, *place: str) -> str:
        """``iv:ciphertext:tag``, each in base64. ``place`` is what the value is bound to."""
        iv = os.urandom(_IV_BYTES)
        whole = AESGCM(self.material).encrypt(iv, value.encode(), _bound(place))
        parts = (iv, whole[:-_TAG_BYTES], whole[-_TAG_BYTES:])
        return ":".join(base64.b64encode(part).decode() for part in parts)

    def open(self, sealed: str, *place: str) -> str:
        """The value.

        Raises:
            Unreadable: it was sealed with another key, for another place, or was changed since.
        """
        try:
            iv, text, tag = (base64.b64decode(part, validate=True) for part in sealed.split(":"))
            return AESGCM(self.material).decrypt(iv, text + tag, _bound(place)).decode()
        except (InvalidTag, ValueError, binascii.Error):
            raise Unreadable("a sealed value does not open") from None


def _bound(place: Iterable[str]) -> bytes:
    """The parts of a place as one string from which they could be told apart again."""
    parts = [part.encode() for part in place]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def keys_of(text: str, source: str) -> list[MasterKey]:
    """The keys that a text holds, one a line or with commas between them; the newest is the first.

    Raises:
        InvalidRequest: it holds none, or something else. The message names the source, never the text.
    """
    keys: list[MasterKey] = []
    for word in text.replace(",", "\n").split():
        try:
            material = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            material = b""
        if len(material) != KEY_BYTES:
            raise InvalidRequest(
                f"{source} does not hold a master key: {KEY_BYTES} bytes in base64",
                hint=f"openssl rand -base64 {KEY_BYTES} makes one",
            )
        keys.append(MasterKey.of(material))
    if not keys:
        raise InvalidRequest(f"{source} is empty", hint="it holds the master key")
    return keys
