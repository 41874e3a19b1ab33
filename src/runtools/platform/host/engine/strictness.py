"""What runs on from before its operator came to require hardware isolation, and has it not, is paused."""

from __future__ import annotations

import logging

from runtools.errors import HostUnavailable, RunToolsError, SandboxStopped
from runtools.platform.core.states import State
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.acts.pause import pause
from runtools.platform.host.engine.why import PLATFORM, Why
from runtools.platform.kit.clock import Backoff

log = logging.getLogger(__name__)


async def hold(box: Actor) -> None:
    """Pause one that runs emulated, after what is under way in it. What fails is tried until it holds."""
    backoff = Backoff(box.engine.clock)

    async def once() -> None:
        if box.state is State.RUNNING and box.record.isolation != "hardware":
            log.warning("%s is emulated, which the setting require_isolation forbids", box.id)
            await pause(box, Why("isolation", PLATFORM))

    while True:
        try:
            await box.perform(once)
        except (SandboxStopped, HostUnavailable):  # destroyed meanwhile, or the host goes down
            return
        except (RunToolsError, OSError) as exc:
            log.error("%s runs emulated, and could not be paused yet: %s", box.id, exc)
        else:
            return
        await backoff.wait()
