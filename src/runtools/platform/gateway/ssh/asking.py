"""The doorway port over HTTP: the gateway asks the api, as the part that it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from runtools.errors import Unavailable, from_wire
from runtools.platform.core.ports.doorway import (
    PREFIX,
    Address,
    Answer,
    Doorway,
    Ends,
    Entering,
    Entry,
    KeyShown,
    Over,
    PasswordShown,
    Standing,
    Visit,
)
from runtools.platform.gateway.part import PartClient

_SECONDS = 10.0
_ENTER_SECONDS = 180.0  # a sandbox may have to be woken, and wait for room

ShapeT = TypeVar("ShapeT", bound=BaseModel)


class ApiDoorway(PartClient, Doorway):
    """Asks one api.

    Args:
        url: where it listens.
        token: what this part shows it.
    """

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token, _SECONDS)

    async def key_opens(self, shown: KeyShown) -> bool:
        """See `Doorway`."""
        return (await self._ask("key", shown, Answer)).admitted

    async def password_opens(self, shown: PasswordShown) -> bool:
        """See `Doorway`."""
        return (await self._ask("password", shown, Answer)).admitted

    async def enter(self, entering: Entering) -> Entry:
        """See `Doorway`."""
        return await self._ask("enter", entering, Entry, _ENTER_SECONDS)

    async def ended(self, visits: Sequence[Visit]) -> Sequence[Over]:
        """See `Doorway`."""
        return (await self._ask("standing", Standing(visits=list(visits)), Ends)).over

    async def announce(self, address: Address) -> None:
        """See `Doorway`."""
        await self._ask("address", address, Address)

    async def _ask(
        self, path: str, says: BaseModel, model: type[ShapeT], seconds: float = _SECONDS
    ) -> ShapeT:
        try:
            answer = await self._client.post(
                f"{PREFIX}/{path}", content=says.model_dump_json(), timeout=seconds
            )
            said = answer.json()
            if answer.is_success:
                return model.model_validate(said["data"])
            error = from_wire(said["error"])
        except (httpx.HTTPError, ValidationError, ValueError, KeyError, TypeError) as exc:
            raise Unavailable("the api does not say whom to let in") from exc
        raise error
