"""The doorway port over HTTP: the gateway asks the api, as the part that it is."""

from __future__ import annotations

from collections.abc import Sequence

from runtools.platform.core.ports.doorway import (
    PREFIX,
    Address,
    Answer,
    Doorway,
    Ends,
    Entering,
    Entry,
    KeyShown,
    PasswordShown,
    Standing,
    Visit,
)
from runtools.platform.gateway.part import PartClient

_SECONDS = 10.0
_WAKE_SECONDS = 180.0  # a sandbox may have to wait for room


class ApiDoorway(PartClient, Doorway):
    """Asks one api.

    Args:
        url: where it listens.
        token: what this part shows it.
    """

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token, PREFIX, _SECONDS, "the api does not say whom to let in")

    async def key_opens(self, shown: KeyShown) -> bool:
        """See `Doorway`."""
        return (await self.ask("key", shown, Answer)).admitted

    async def password_opens(self, shown: PasswordShown) -> bool:
        """See `Doorway`."""
        return (await self.ask("password", shown, Answer)).admitted

    async def enter(self, entering: Entering) -> Entry:
        """See `Doorway`."""
        return await self.ask("enter", entering, Entry, _WAKE_SECONDS)

    async def ended(self, visits: Sequence[Visit]) -> Ends:
        """See `Doorway`."""
        return await self.ask("standing", Standing(visits=list(visits)), Ends)

    async def waken(self, visit: Visit) -> None:
        """See `Doorway`."""
        await self.ask("waken", visit, Visit, _WAKE_SECONDS)

    async def announce(self, address: Address) -> None:
        """See `Doorway`."""
        await self.ask("address", address, Address)
