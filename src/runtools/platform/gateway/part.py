"""A client of the api that shows the token of a part, and is closed with its block."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx


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
