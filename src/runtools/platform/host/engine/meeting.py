"""The first words with a guest agent, and the gate: nobody gets a machine that was not renewed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from runtools.errors import DeadlineExceeded, GuestMisbehaved, GuestUnreachable
from runtools.platform.core.ports.driver import Machine, VmmFailed
from runtools.platform.host.engine.engine import Engine
from runtools.platform.host.engine.words import how_it_ended
from runtools.platform.host.guest import identity as gate
from runtools.platform.host.guest.client import GuestClient
from runtools.platform.host.guest.identity import Evidence, Identity

# A restored guest answers in well under a second, a cold one in 8 (a desktop in 40) under emulation.
RESTORED_SECONDS = 60.0
BOOTED_SECONDS = 300.0
_RETRY_SECONDS = 0.02
_LATE_SECONDS = 0.2
_MOST_RENEWALS = 3
_SLOWEST_RETRY_SECONDS = 0.5


def client(
    engine: Engine, org_id: str, machine: Machine, token: str, connected: Callable[[], None]
) -> GuestClient:
    """How to speak to the agent of an org's machine; ``connected`` hears of each connection made.

    One of no known org, from before orders said whose they are, shares with none.
    """

    async def connect() -> socket.socket:
        sock = await engine.driver.connect(machine)
        connected()
        return sock

    return GuestClient(connect, token, holding=engine.outputs.of(org_id))


async def meet(
    engine: Engine, machine: Machine, guest: GuestClient, identity: Identity, within: float
) -> None:
    """Renew a machine, and check what it says it has done; its clock is right to a fraction of a second.

    Raises:
        VmmFailed: the VMM ended meanwhile.
        GuestUnreachable: the agent did not answer in time.
        RunToolsError: the gate refused, because something was not renewed.
    """
    for attempt in range(1, _MOST_RENEWALS + 1):
        evidence = await _or_death(engine, machine, _renew(guest, identity, within))
        now = engine.clock.now()
        gate.check(identity, evidence, now)
        if now.timestamp() - evidence.clock <= _LATE_SECONDS or attempt == _MOST_RENEWALS:
            return
        # The time was right when it was sent. Where the machine was slow to take it, as it is in its
        # first moments on a busy host, it is told again: by now it is quick.
        identity = Identity.make_again()


async def _renew(guest: GuestClient, identity: Identity, within: float) -> Evidence:
    pause = _RETRY_SECONDS
    said = "nothing"
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    return await guest.renew(identity)
                except GuestMisbehaved:
                    raise
                except (GuestUnreachable, DeadlineExceeded, OSError) as exc:
                    said = str(exc) or type(exc).__name__
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _SLOWEST_RETRY_SECONDS)
    except TimeoutError:
        raise GuestUnreachable(
            f"the guest agent did not answer within {within:g} s; last: {said}",
            hint="runtools sandbox logs shows the console",
        ) from None


async def _or_death(
    engine: Engine, machine: Machine, talk: Coroutine[Any, Any, Evidence]
) -> Evidence:
    """Wait for the talk, but not for a machine that is dead."""
    talking = asyncio.create_task(talk)
    dying = asyncio.ensure_future(engine.driver.watch(machine))
    try:
        await asyncio.wait({talking, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not talking.done():
            raise VmmFailed(f"the virtual machine ended: {how_it_ended(dying.result())}")
        return talking.result()
    finally:
        for task in (talking, dying):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({talking, dying})
