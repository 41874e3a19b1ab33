"""A deploy in the hands of the process that has its lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runtools.errors import DeployCancelled
from runtools.platform.api.calls import Call, behalf
from runtools.platform.api.deploys import store
from runtools.platform.api.deploys.tables import Row
from runtools.platform.api.platform import Platform
from runtools.platform.kit.db import Transaction
from runtools.sdk.shapes.definitions import Kind


class Lost(Exception):
    """Another process has the deploy: whatever this one was about to write is not written."""


@dataclass(frozen=True, slots=True)
class Work:
    """A change with what is needed to carry it out.

    Attributes:
        fields: what changes, by the names of the wire.
        wanted: the whole definition, on the wire.
        definition_id, sandbox_id: what stood under the slug when the deploy began.
    """

    action: str
    kind: Kind
    slug: str
    fields: list[str]
    wanted: Mapping[str, Any] | None
    definition_id: str | None
    sandbox_id: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """The deploy, its lease and its work."""

    platform: Platform
    row: Row
    lease: str
    work: list[Work]

    def call(self, at: int, part: str = "") -> Call:
        """A call for an act of one change; the same id at every repeat."""
        op = f"{self.row.id}-{at}{part}"
        return behalf(self.platform, self.row.org_id, self.row.actor, op)

    def place(self, work: Work) -> tuple[str, str, Kind, str]:
        """Where in the project the definition stands."""
        return self.row.org_id, self.row.project_id, work.kind, work.slug

    async def note(self, at: int, act: Callable[[Transaction], None]) -> None:
        """Write what a change comes to, and that it is done, in one transaction.

        Raises:
            Lost: another process has taken the deploy.
        """
        await self.platform.db.write(self._noted, at, act)
        self.platform.bus.signal(self.row.id)

    async def write(self, act: Callable[..., bool], *values: Any) -> None:
        """Write something about the deploy itself.

        Raises:
            Lost: another process has taken it.
        """
        if not await self.platform.db.write(act, self.row.id, self.lease, *values):
            raise Lost
        self.platform.bus.signal(self.row.id)

    async def check(self) -> None:
        """Go on, unless somebody has cancelled the deploy.

        Raises:
            DeployCancelled: somebody has.
        """
        by = await self.platform.db.read(store.cancelled, self.row.id)
        if by is not None:
            raise DeployCancelled(
                f"cancelled by {by}", hint="what was done before it stays; deploy again to go on"
            )

    async def held(self, act: Callable[[Transaction], None]) -> None:
        """Write something while the lease is ours.

        Raises:
            Lost: another process has taken the deploy.
        """
        await self.platform.db.write(self._held, act)

    def _noted(self, conn: Transaction, at: int, act: Callable[[Transaction], None]) -> None:
        if not store.advance(conn, self.row.id, self.lease, at + 1):
            raise Lost
        act(conn)

    def _held(self, conn: Transaction, act: Callable[[Transaction], None]) -> None:
        if not store.is_held(conn, self.row.id, self.lease):
            raise Lost
        act(conn)
