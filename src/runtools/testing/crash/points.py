"""The host is killed at one named point, in the act that passes it."""

from __future__ import annotations

import contextlib
import os
import signal

from runtools.errors import HostUnavailable
from runtools.platform.core.ids import new_id, new_sandbox_id
from runtools.testing.crash import look
from runtools.testing.crash.model import Act, Box, Kind
from runtools.testing.crash.saga import Saga

_KINDS: dict[str, Kind] = {
    "create": "create",
    "pause": "pause",
    "resume": "resume",
    "snapshot": "snapshot",
    "rollback": "rollback",
    "fork": "fork",
    "child": "fork",
    "destroy": "destroy",
}


async def survive(saga: Saga, point: str) -> None:
    """Two sandboxes; the host dies at the point in an act on one of them; all that must hold, holds.

    Raises:
        AssertionError: something does not, or the point was never reached.
    """
    what = point.partition(".")[0]
    # The two creates of the scene pass the points of a create before the third does.
    async with saga.begun(f"{point}#3" if what == "create" else point):
        await _made(saga)
        box = await _made(saga)
        act = await _set_up(saga, what, box)
        if act is None:
            await _die(saga, box)
        else:
            with contextlib.suppress(HostUnavailable):
                await saga.do(act)
        assert await saga.house.ended() == -signal.SIGKILL, f"{point} was not reached"
        await saga.house.start()
        if act is None:
            saga.model.died(box)
        else:
            await saga.repeat(act)
        await saga.hold()
        await saga.end()


async def _made(saga: Saga) -> str:
    """A sandbox with something in it."""
    box = new_sandbox_id()
    await saga.do(Act("create", box, new_id("opn")))
    await saga.do(Act("mark", box, new_id("opn")))
    await saga.do(Act("line", box, new_id("opn")))
    return box


async def _set_up(saga: Saga, what: str, box: str) -> Act | None:
    """What must be there before the act, and the act; None where a machine is to die by itself."""
    if what == "end":
        return None
    kind = _KINDS[what]
    things: tuple[str, ...] = ()
    if kind == "create":
        return Act("create", new_sandbox_id(), new_id("opn"))
    if kind == "resume":
        await saga.do(Act("pause", box, new_id("opn")))
    elif kind in {"snapshot", "rollback"}:
        things = (new_id("snp"),)
    elif kind == "fork":
        things = (new_sandbox_id(), new_sandbox_id())
    if kind == "rollback":
        await saga.do(Act("snapshot", box, new_id("opn"), things))
        await saga.do(Act("line", box, new_id("opn")))
    return Act(kind, box, new_id("opn"), things)


async def _die(saga: Saga, box: str) -> None:
    (pid,) = (pid for pid, of in look.machines(saga.house.home, saga.driver) if of == box)
    os.kill(pid, signal.SIGKILL)


async def give_up(saga: Saga) -> None:
    """A create that takes the host down each time is tried a second time, and then given up."""
    act = Act("create", new_sandbox_id(), new_id("opn"))
    async with saga.begun("create.started"):
        with contextlib.suppress(HostUnavailable):
            await saga.do(act)
        assert await saga.house.ended() == -signal.SIGKILL
        await saga.house.begin("create.started")
        assert await saga.house.ended() == -signal.SIGKILL, "it was not tried again"
        await saga.house.start("create.started")
        seen = await saga.house.host.settled(act.box, look.SETTLE_SECONDS)
        assert seen.ending is not None
        assert (seen.state, seen.ending.cause) == ("stopped", "start_failed")
        saga.model.boxes[act.box] = Box(act.box, "stopped")
        await saga.hold()
