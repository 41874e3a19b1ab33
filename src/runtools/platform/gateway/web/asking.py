"""The admitting port over HTTP: the gateway asks the api, as the part that it is."""

from __future__ import annotations

from typing import Final

import httpx
from pydantic import ValidationError

from runtools.errors import Unavailable
from runtools.platform.core.ports.admitting import Admitting, Asked, Verdict
from runtools.platform.gateway.part import PartClient

_PATH: Final = "/parts/gateway/admissions"
_SECONDS: Final = 5.0


class Api(PartClient, Admitting):
    """Asks one api.

    Args:
        url: where it listens.
        token: what this part shows it.
    """

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token, _SECONDS)

    async def admit(self, asked: Asked) -> Verdict:
        """See `Admitting`."""
        try:
            answer = await self._client.post(_PATH, content=asked.model_dump_json())
            answer.raise_for_status()
            return Verdict.model_validate(answer.json()["data"])
        except httpx.HTTPStatusError as exc:
            raise Unavailable(
                f"the api answers {exc.response.status_code} to whom to let in"
            ) from exc
        except (httpx.HTTPError, ValidationError, ValueError, KeyError, TypeError) as exc:
            raise Unavailable("the api does not say whom to let in") from exc
