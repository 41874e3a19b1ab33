"""What all connections of a gateway share: whom it asks, where it leads, who is in, who has to wait."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import asyncssh

from runtools.errors import RunToolsError
from runtools.platform.core.ports.doorway import MOST_VISITS, Doorway, Visit
from runtools.platform.core.ports.reach import Reach
from runtools.platform.gateway.ssh.guesses import Guesses
from runtools.platform.gateway.ssh.keys import GatewayKeys
from runtools.platform.gateway.ssh.rooms import Rooms
from runtools.platform.gateway.ssh.strangers import Strangers
from runtools.platform.gateway.ssh.wires import ClientWire, SandboxWire
from runtools.platform.gateway.waking import Waking
from runtools.platform.kit.background import Background
from runtools.platform.kit.clock import Clock

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
LOOKING = "looking who is to leave"
# Each connection without a login counts as a failure of its source, and so does each wrong password.
_FREE_OF_SOURCE = 10
_FREE_OF_SANDBOX = 30
_LONGEST_WAIT = 300.0
_AT_ONCE = 4


class Inside(Protocol):
    """Somebody who is in."""

    @property
    def visit(self) -> Visit | None:
        """What opened the door; None: nothing has yet."""
        ...

    def end(self, sentence: str) -> None:
        """Say the sentence and end."""
        ...

    def limit(self) -> None:
        """The org that it visits has limits to keep from now on."""
        ...


@dataclass(slots=True)
class House:
    """The parts of one gateway.

    Attributes:
        sources: failures by the address that they come from.
        passwords: wrong passwords by the sandbox that they were for.
        places: connections by address.
        strangers: those that have not logged in yet.
        rooms: logins by sandbox.
        waking: the sandboxes that are woken for those who are in.
        checking: bounds how many passwords are checked at once: each costs the api some work.
        agents: whether a sandbox may use the agent of who is in and asks for it (``ssh -A``).
        inside: all connections that have logged in.
        streams: all connections into sandboxes.
        background: what goes on beside the connections.
    """

    doorway: Doorway
    reach: Reach
    keys: GatewayKeys
    clock: Clock
    sources: Guesses
    passwords: Guesses
    places: Rooms
    strangers: Strangers[ClientWire]
    rooms: Rooms
    waking: Waking[Visit]
    agents: bool
    checking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    inside: set[Inside] = field(default_factory=set)
    streams: set[SandboxWire] = field(default_factory=set)
    background: Background = field(default_factory=lambda: Background(asyncssh.Error))

    def spawn(self, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[Any]:
        """Do something beside what asked for it; what nobody awaits is logged."""
        return self.background.spawn(work, name)

    def refusal(self, source: str) -> str | None:
        """Why nobody is let in from there at present."""
        wait = self.sources.wait(source)
        if wait:
            return f"too many failed logins from your address; try again in {math.ceil(wait)} s"
        return None

    async def look_on(self) -> None:
        """End, for ever, the visits of those whose key was taken away or whose sandbox has ended."""
        while True:
            await self.clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except RunToolsError as error:
                log.warning("cannot ask who is to leave: %s", error)
            except Exception:
                # Whatever it was: without this loop no key that is taken away would end anything.
                log.exception("cannot ask who is to leave")

    async def look(self) -> None:
        """End the visits that are over, and have limits kept that came meanwhile."""
        there = [(one, visit) for one in self.inside if (visit := one.visit) is not None]
        for piece in _pieces(there):
            ends = await self.doorway.ended([visit for _, visit in piece])
            for place in ends.limited:
                piece[place][0].limit()
            for over in ends.over:
                piece[over.place][0].end(over.because)

    def close(self) -> None:
        """Send everybody home."""
        for one in list(self.inside):
            one.end("the gateway is being stopped")
        for task in self.background:
            if task.get_name() == LOOKING:
                task.cancel()


def house(
    doorway: Doorway,
    reach: Reach,
    keys: GatewayKeys,
    clock: Clock,
    *,
    per_source: int,
    per_sandbox: int,
    agents: bool = False,
) -> House:
    """A gateway in which nobody is yet."""
    return House(
        doorway=doorway,
        reach=reach,
        keys=keys,
        clock=clock,
        sources=Guesses(clock, free=_FREE_OF_SOURCE, longest=_LONGEST_WAIT),
        passwords=Guesses(clock, free=_FREE_OF_SANDBOX, longest=_LONGEST_WAIT),
        places=Rooms(per_source),
        # Some places of an address are only for who comes when all others are held by strangers.
        strangers=Strangers(clock, most_of_source=per_source - per_source // 16),
        rooms=Rooms(per_sandbox),
        waking=Waking(doorway.waken),
        agents=agents,
    )


def _pieces(there: list[tuple[Inside, Visit]]) -> Iterable[list[tuple[Inside, Visit]]]:
    for start in range(0, len(there), MOST_VISITS):
        yield there[start : start + MOST_VISITS]
