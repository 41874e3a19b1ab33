"""The admitting port: the gateway asks the api who may enter a dev URL. Shapes of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

PREFIX: Final = "/parts/gateway/dev-urls"
MOST_STAYS: Final = 256  # that are asked about at once

Secret = Annotated[str, Field(max_length=512)]
SandboxId = Annotated[str, Field(max_length=24)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Asked(_Shape):
    """Somebody wants to a port of a sandbox.

    Attributes:
        key: what programs show: an API key, or the session of a command line.
        link: what an address was opened with.
        cookies: what links have become.
    """

    sandbox_id: SandboxId
    port: Annotated[int, Field(ge=1, le=65535)]
    key: Secret | None = Field(None, repr=False)
    link: Secret | None = Field(None, repr=False)
    cookies: Annotated[tuple[Secret, ...], Field(max_length=8, strict=False, repr=False)] = ()


class Verdict(_Shape):
    """What is said to that.

    Attributes:
        answer: ``enter``; or ``unknown``, which says of what is private, another org's or nowhere
            that there is none.
        cookie: what a browser is to keep of a link that opened, and for how many seconds.
        public: it is so for everybody, whatever is shown.
        wakes: what is sent there may wake the sandbox; otherwise its org has limits to keep, and the
            api wakes it (`Admitting.waken`).
    """

    answer: Literal["enter", "unknown"]
    cookie: str | None = Field(None, repr=False)
    seconds: int = 0
    public: bool = False
    wakes: bool = True


class Standing(_Shape):
    """Those who were let in."""

    asked: Annotated[tuple[Asked, ...], Field(max_length=MOST_STAYS, strict=False)]


class Stay(_Shape):
    """Whether one may stay. ``wakes``: see `Verdict`; limits may have come since."""

    may: bool
    wakes: bool = True


class Stays(_Shape):
    """What is said of each, in the same order."""

    stays: Annotated[tuple[Stay, ...], Field(strict=False)]


class Waking(_Shape):
    """A sandbox that somebody who was let in wants something of."""

    sandbox_id: SandboxId


class Admitting(Protocol):
    """Says who may enter."""

    async def admit(self, asked: Asked) -> Verdict:
        """Whether that may enter.

        Raises:
            Unavailable: nobody can say at the moment.
        """
        ...

    async def stays(self, asked: Sequence[Asked]) -> Sequence[Stay]:
        """Whether each of these, who were let in, still may be there. Links are not looked at.

        Raises:
            Unavailable: nobody can say at the moment.
        """
        ...

    async def waken(self, sandbox_id: str) -> None:
        """Have a sandbox awake, counted among what its org runs.

        Raises:
            QuotaExceeded: its org runs as much as it may.
            NotFound, SandboxStopped: there is nothing to wake.
            Unavailable: nobody can at the moment.
        """
        ...
