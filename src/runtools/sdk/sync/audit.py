# Generated from sdk/audit.py by scripts/generate_sync.py: edit that, then run it.
"""The org's audit log."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from runtools.sdk import wire
from runtools.sdk.shapes.audit import AuditLine
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class Audit:
    """The audit log: ``rt.audit``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, action: str | None = None, resource: str | None = None, actor: str | None = None
    ) -> Generator[AuditLine, None, None]:
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
        with closing(self._transport.pages("/audit", query, _PAGE)) as items:
            for item in items:
                yield wire.shape(AuditLine, item)
