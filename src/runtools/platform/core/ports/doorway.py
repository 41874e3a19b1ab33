"""The doorway port: whom the gateway lets in by SSH. The api answers; the gateway has no rule of its own.

A visit is named by the sandbox and by what opened it: a key's fingerprint, or the sandbox's own password.
Of a sandbox that nobody has, and of one that the key does not open, the answer is one and the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import Field

from runtools.sdk.shapes.base import Shape

PREFIX = "/parts/gateway/ssh"
MOST_VISITS = 10_000


class Visit(Shape):
    """Somebody who is in, or wants to be. ``fingerprint`` None: by the sandbox's own password."""

    sandbox_id: str = Field(max_length=64)
    fingerprint: str | None = Field(None, max_length=64)


class KeyShown(Shape):
    """A public key that somebody offers for a sandbox."""

    sandbox_id: str = Field(max_length=64)
    fingerprint: str = Field(max_length=64)


class PasswordShown(Shape):
    """A password that somebody offers for a sandbox."""

    sandbox_id: str = Field(max_length=64)
    password: str = Field(max_length=1024, repr=False)
    source: str = Field(max_length=64)


class Answer(Shape):
    """Whether it opens."""

    admitted: bool


class Entering(Shape):
    """Somebody whose key or password was proven begins a session.

    Attributes:
        source: the address that it comes from.
        authority: the public key by which the gateway vouches for its logins at the sandbox.
    """

    visit: Visit
    source: str = Field(max_length=64)
    authority: str = Field(max_length=1024)


class Entry(Shape):
    """What the gateway needs to log in at the sandbox.

    Attributes:
        host_keys: the public ones that lie there.
        wakes: what is said to it later may wake it; otherwise its org has limits to keep, and the api
            wakes it (`Doorway.waken`).
    """

    host_keys: list[str]
    wakes: bool = True


class Standing(Shape):
    """All who are in at a gateway."""

    visits: list[Visit] = Field(max_length=MOST_VISITS)


class Over(Shape):
    """A visit (by its place in the list) that is to end, and the sentence that says why."""

    place: int
    because: str


class Ends(Shape):
    """The visits that are over.

    Attributes:
        limited: places of those at orgs that have limits to keep by now (see `Entry.wakes`).
    """

    over: list[Over]
    limited: list[int] = Field(default_factory=list)


class Address(Shape):
    """Where people reach the gateway by SSH, and its public host keys; told once at its start."""

    host: str = Field(max_length=255)
    port: int = Field(ge=1, le=65_535)
    host_keys: list[str] = Field(max_length=8)


class Doorway(Protocol):
    """Asked about every login. All raise `Unavailable` where the api does not answer."""

    async def key_opens(self, shown: KeyShown) -> bool:
        """Whether a key would be let in."""
        ...

    async def password_opens(self, shown: PasswordShown) -> bool:
        """Whether a password is the sandbox's own."""
        ...

    async def enter(self, entering: Entering) -> Entry:
        """Note the login, wake the sandbox, and make it take logins by the authority.

        Raises:
            NotFound: the visit is not (or no longer) allowed.
            SandboxStopped: it has ended.
            GuestUnreachable: it does not answer.
        """
        ...

    async def ended(self, visits: Sequence[Visit]) -> Ends:
        """Which of these are over: the key was taken away, or the sandbox has ended."""
        ...

    async def waken(self, visit: Visit) -> None:
        """Have the sandbox awake, counted among what its org runs.

        Raises:
            QuotaExceeded: its org runs as much as it may.
            NotFound, SandboxStopped: there is nothing to wake.
        """
        ...

    async def announce(self, address: Address) -> None:
        """Tell where the gateway is."""
        ...
