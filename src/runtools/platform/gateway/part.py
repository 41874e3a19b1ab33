"""A client of the api that shows the token of a part, and is closed with its block."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from runtools.errors import Unavailable, from_wire

# Some answers wait until a sandbox is awake: none of the others waits behind them.
_LIMITS: Final = httpx.Limits(max_connections=2_000, max_keepalive_connections=100)

ShapeT = TypeVar("ShapeT", bound=BaseModel)


class PartClient:
    """What asks one api.

    Args:
        url: where it listens.
        token: what this part shows it.
        prefix: the path below which this part asks.
        seconds: how long an answer may take, where nothing else is said.
        silence: what is said where it does not answer as it should.
    """

    def __init__(self, url: str, token: str, prefix: str, seconds: float, silence: str) -> None:
        self._prefix = prefix
        self._seconds = seconds
        self._silence = silence
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            limits=_LIMITS,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self._client.aclose()

    async def ask(
        self, path: str, says: BaseModel, model: type[ShapeT], seconds: float | None = None
    ) -> ShapeT:
        """What the api answers.

        Raises:
            RunToolsError: what it answers instead.
            Unavailable: it does not answer, or not as it should.
        """
        try:
            answer = await self._client.post(
                f"{self._prefix}/{path}",
                content=says.model_dump_json(),
                timeout=self._seconds if seconds is None else seconds,
            )
            said = answer.json()
            if answer.is_success:
                return model.model_validate(said["data"])
            error = from_wire(said["error"])
        except (httpx.HTTPError, ValidationError, ValueError, KeyError, TypeError) as exc:
            raise Unavailable(self._silence) from exc
        raise error
