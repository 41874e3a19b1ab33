"""The admitting port over HTTP: the gateway asks the api, as the part that it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel

from runtools.errors import RunToolsError, Unavailable
from runtools.platform.core.ports.admitting import (
    MOST_STAYS,
    PREFIX,
    Admitting,
    Asked,
    Standing,
    Stay,
    Stays,
    Verdict,
    Waking,
)
from runtools.platform.gateway.part import PartClient, ShapeT

_SECONDS: Final = 5.0
_WAKE_SECONDS: Final = 180.0  # it may wait for room


class Api(PartClient, Admitting):
    """Asks one api.

    Args:
        url: where it listens.
        token: what this part shows it.
    """

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token, PREFIX, _SECONDS, "the api does not answer the gateway")

    async def admit(self, asked: Asked) -> Verdict:
        """See `Admitting`."""
        return await self._say("admit", asked, Verdict)

    async def stays(self, asked: Sequence[Asked]) -> Sequence[Stay]:
        """See `Admitting`."""
        found: list[Stay] = []
        for at in range(0, len(asked), MOST_STAYS):
            some = tuple(asked[at : at + MOST_STAYS])
            said = (await self._say("stays", Standing(asked=some), Stays)).stays
            if len(said) != len(some):
                raise Unavailable("the api does not say of all whether they may stay")
            found += said
        return found

    async def waken(self, sandbox_id: str) -> None:
        """See `Admitting`."""
        await self.ask("waken", Waking(sandbox_id=sandbox_id), Waking, _WAKE_SECONDS)

    async def _say(self, path: str, says: BaseModel, model: type[ShapeT]) -> ShapeT:
        """An answer to who may enter; an error is none, and nothing that a stranger is told of."""
        try:
            return await self.ask(path, says, model)
        except RunToolsError as exc:
            raise Unavailable("the api does not say whom to let in") from exc
