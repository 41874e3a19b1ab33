"""The org's audit log."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from runtools.sdk import wire
from runtools.sdk.shapes.audit import AuditLine
from runtools.sdk.transport import AsyncTransport

_PAGE = 100


class AsyncAudit:
    """The audit log: ``rt.audit``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(
        self, *, action: str | None = None, resource: str | None = None, actor: str | None = None
    ) -> AsyncGenerator[AuditLine, None]:
        """Every mutating call that fits what is given, the newest first, page by page as they are used.

        Args:
            action: noun.verb, for example ``secrets.reveal``.
            resource: the id or name of what it was done to.
            actor: the id of an API key.
        """
        query: list[tuple[str, object]] = [
            ("action", action),
            ("resource", resource),
            ("actor", actor),
        ]
        async with aclosing(self._transport.pages("/audit", query, _PAGE)) as items:
            async for item in items:
                yield wire.shape(AuditLine, item)
