"""A client of the api that shows the token of a part, and is closed with its block."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import httpx

# Some answers wait until a sandbox is awake: none of the others waits behind them.
_LIMITS: Final = httpx.Limits(max_connections=2_000, max_keepalive_connections=100)


class PartClient:
    """What asks one api.

    Args:
        url: where it listens.
        token: what this part shows it.
        seconds: how long an answer may take, where nothing else is said.
    """

    def __init__(self, url: str, token: str, seconds: float) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=seconds,
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
