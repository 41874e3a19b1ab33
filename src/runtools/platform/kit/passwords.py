"""Passwords of people: argon2id hashes, made and checked in threads, a few at a time.

A check of somebody who does not exist does the same work as one of somebody who does.
"""

from __future__ import annotations

import asyncio
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_AT_ONCE = 2  # each takes its memory for a tenth of a second


class Passwords:
    """Hashes with the parameters of one platform."""

    def __init__(self, *, memory_kb: int, rounds: int) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory_kb, parallelism=1)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """What is kept of a password."""
        async with self._room:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def check(self, kept: str | None, password: str) -> bool:
        """Whether it is the password; of None it never is, and takes as long to say so."""
        if self._nobody is None:
            self._nobody = await self.hash(secrets.token_urlsafe(16))
        async with self._room:
            same = await asyncio.to_thread(self._same, kept or self._nobody, password)
        return same and kept is not None

    def is_old(self, kept: str) -> bool:
        """Whether it was made with other parameters than are in force."""
        return self._hasher.check_needs_rehash(kept)

    def _same(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False
