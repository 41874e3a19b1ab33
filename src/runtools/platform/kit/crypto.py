"""Secrets at the border: random keys, their digests, and passwords in the form a Linux login takes."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from runtools.platform.kit import process

# openssl reads this many bytes of a password and silently drops the rest, so longer ones are refused.
MAX_PASSWORD_BYTES = 256


def new_secret(prefix: str) -> str:
    """The prefix and 43 URL-safe characters: 256 random bits."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a random secret. Its 256 bits make a slow hash pointless."""
    return hashlib.sha256(secret.encode()).hexdigest()


def keyed_digest(key: str, *parts: bytes) -> str:
    """A digest of the parts that only a holder of the key can compare guesses with."""
    mac = hmac.new(key.encode(), digestmod=hashlib.sha256)
    for part in parts:
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(part)
    return mac.hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two digests are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


async def login_fits(password: str, kept: str) -> bool:
    """Whether a password is the one of a hash that `login_hash` has made. Costs the same for all.

    What no password can be (control characters, too many bytes) fits none.
    """
    _, _, salt, _ = kept.split("$")
    data = password.encode("utf-8", "replace")
    sane = 0 < len(data) <= MAX_PASSWORD_BYTES and password.isprintable()
    done = await process.run(
        ["openssl", "passwd", "-6", "-salt", salt, "-stdin"],
        stdin=(data if sane else b"-") + b"\n",
        timeout=10,
    )
    return same(done.stdout.decode().strip(), kept) and sane


async def login_hash(password: str) -> str:
    """The password as crypt(5) with SHA-512 and a fresh salt (``$6$…``), for a login on Linux.

    The caller has refused control characters and more than `MAX_PASSWORD_BYTES`: `openssl` reads one
    line from its standard input, so that the password is on no command line.
    """
    done = await process.run(
        ["openssl", "passwd", "-6", "-stdin"], stdin=password.encode() + b"\n", timeout=10
    )
    return done.stdout.decode().strip()
