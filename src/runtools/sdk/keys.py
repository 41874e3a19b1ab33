"""API keys of the org."""

from __future__ import annotations

from runtools.sdk import wire
from runtools.sdk.shapes.account import ApiKey
from runtools.sdk.transport import AsyncTransport


class AsyncApiKeys:
    """API keys: ``rt.api_keys``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, name: str) -> ApiKey:
        """Make a key. Its ``key`` is in this answer alone: nobody can show it again."""
        answer = await self._transport.call("POST", "/api-keys", body={"name": name})
        return wire.shape(ApiKey, answer.data)

    async def revoke(self, key_id: str) -> None:
        """End a key by its id (``key_…``); it stops working within a second."""
        await self._transport.call("DELETE", f"/api-keys/{wire.segment(key_id)}")

    async def list(self) -> list[ApiKey]:
        """The org's keys, revoked ones too, without the keys themselves."""
        return wire.shapes(ApiKey, (await self._transport.call("GET", "/api-keys")).data)
