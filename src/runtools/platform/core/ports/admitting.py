"""The admitting port: the gateway asks the api who may enter a dev URL. Shapes of both sides."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Secret = Annotated[str, Field(max_length=512)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Asked(_Shape):
    """Somebody wants to a port of a sandbox.

    Attributes:
        key: what programs show: an API key, or the session of a command line.
        link: what an address was opened with.
        cookies: what links have become.
    """

    sandbox_id: Annotated[str, Field(max_length=24)]
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
    """

    answer: Literal["enter", "unknown"]
    cookie: str | None = Field(None, repr=False)
    seconds: int = 0


class Admitting(Protocol):
    """Says who may enter."""

    async def admit(self, asked: Asked) -> Verdict:
        """Whether that may enter.

        Raises:
            Unavailable: nobody can say at the moment.
        """
        ...
