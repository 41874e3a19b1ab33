# Generated from sdk/usage.py by scripts/generate_sync.py: edit that, then run it.
"""What the org's sandboxes used."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime

from runtools.sdk import wire
from runtools.sdk.shapes.usage import Group, UsageRow
from runtools.sdk.sync.transport import Transport

_PAGE = 100


class Usage:
    """Usage records: ``rt.usage``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        group: Group = "sandbox",
        project_id: str | None = None,
    ) -> Generator[UsageRow, None, None]:
        """What was used in a period; the whole numbers of its parts add up to those of the whole.

        Args:
            since: default: the beginning of the month, in UTC. A time without a zone is in UTC.
            until: exclusive; default: now.
            group: a row for each ``sandbox``, ``project`` or ``day``, or one for the ``org``.
            project_id: only what lies in that project now, by its id or name.
        """
        query: list[tuple[str, object]] = [
            ("from", _said(since)),
            ("to", _said(until)),
            ("group", group),
            ("projectId", project_id),
        ]
        with closing(self._transport.pages("/usage", query, _PAGE)) as items:
            for item in items:
                yield wire.shape(UsageRow, item)


def _said(at: datetime | None) -> str | None:
    if at is None:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).isoformat()
