"""What every act of the api works with, made once by `app.create_app` and handed down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runtools.platform.api.callers.door import Door
from runtools.platform.api.events.bus import Bus
from runtools.platform.api.hosts.registry import Hosts
from runtools.platform.api.identities.provider import Provider
from runtools.platform.api.keys.service import Keys
from runtools.platform.api.metrics.meters import Meters
from runtools.platform.api.processes.feeds import Feeds
from runtools.platform.api.processes.tickets import Tickets
from runtools.platform.api.runs.readers import Readers
from runtools.platform.api.sessions.service import Sessions
from runtools.platform.api.vault.vault import Vault
from runtools.platform.api.workers.links import Workers
from runtools.platform.kit.background import Background
from runtools.platform.kit.clock import Clock
from runtools.platform.kit.config import Settings
from runtools.platform.kit.db import Database
from runtools.platform.kit.outbound import Outbound
from runtools.platform.kit.passwords import Passwords
from runtools.platform.kit.schemas import Schemas
from runtools.platform.kit.tracing import OFF, Tracing

T = TypeVar("T")


@dataclass(slots=True)
class Platform:
    """The parts of one api process.

    Attributes:
        provider_keys: API keys of model providers that the machine's environment holds, by name.
        background: what goes on beside requests.
        readers: those who read along with runs.
        workers: those of who drives runs that are connected here.
        feeds: the output of processes that is followed.
        asking: ids of records about which this process is talking to a host at the moment, so that
            the reconcile loop leaves them alone.
        install_id: which platform this is.
        strays: what each host has that no record bears, as of the latest look.
        away: hosts whose reports broke off, until they have answered again.
        last: what is done when all of that has ended, and before the database is let go of.
    """

    db: Database
    hosts: Hosts
    clock: Clock
    settings: Settings
    bus: Bus
    door: Door
    keys: Keys
    sessions: Sessions
    passwords: Passwords
    provider: Provider | None
    vault: Vault
    provider_keys: Mapping[str, str] = field(repr=False)
    tickets: Tickets
    outbound: Outbound
    metrics_token: str = field(repr=False)
    readers: Readers
    install_id: str = ""
    workers: Workers = field(default_factory=Workers)
    feeds: Feeds = field(default_factory=Feeds)
    meters: Meters = field(default_factory=Meters)
    schemas: Schemas = field(default_factory=Schemas)
    tracing: Tracing = OFF
    asking: set[str] = field(default_factory=set)
    strays: dict[str, list[str]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    background: Background = field(default_factory=Background)
    last: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def public_url(self) -> str:
        """The address at which people's browsers find the api."""
        return self.settings.browser_url

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Do the work beside the request that asked for it; what nobody awaits is logged."""
        return self.background.spawn(work, name)

    @contextmanager
    def about(self, topic: str) -> Iterator[None]:
        """A host is talked to about something while the body runs; see `asking`."""
        self.asking.add(topic)
        try:
            yield
        finally:
            self.asking.discard(topic)

    async def rest(self) -> None:
        """Stop all that goes on beside requests."""
        await self.background.end()

    async def close(self) -> None:
        """Stop what goes on, and let go of the database."""
        await self.rest()
        for act in self.last:
            await act()
        self.outbound.close()
        await self.db.close()
