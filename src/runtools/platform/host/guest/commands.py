"""A command of a guest: asked for until its answer is there, which says how much it has printed.

Room for that is taken before it is read. What is waited for then is other outputs, not the agent, and
that is told by its own name. However often a connection breaks, it is waited for so long in all.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from runtools.errors import GuestMisbehaved, Unavailable
from runtools.platform.core.ids import new_id
from runtools.platform.host.guest import translate, wire
from runtools.platform.host.guest.channel import Channel, not_counted, within
from runtools.platform.host.guest.holding import Share
from runtools.platform.host.guest.patience import Patience
from runtools.platform.host.guest.pool import Pool
from runtools.sdk.shapes.inside import ExecRequest, ExecResult


async def run(
    pool: Pool, share: Share, patience: Patience, request: ExecRequest, env: Mapping[str, str]
) -> ExecResult:
    """See `GuestClient.exec`."""
    process_id = request.process_id or new_id("prc")
    stdin = translate.stdin(request)
    wanted: dict[str, Any] = {
        "do": "exec",
        "id": process_id,
        "command": request.command,
        "env": {**env, **request.env},
        "cwd": request.cwd,
        "user": request.user,
        "timeout_ms": request.timeout_ms,
        "max_output": request.max_output_bytes,
        "stdin": len(stdin),
    }
    seconds = request.timeout_ms / 1000 + patience.grace
    limit = asyncio.timeout(seconds)
    until: float | None = None

    async def act(channel: Channel) -> ExecResult:
        nonlocal until
        channel.send(wanted)
        if stdin:
            channel.send_bytes(stdin)
        ran = wire.answer(await channel.receive(), wire.Ran)
        if max(ran.stdout, ran.stderr) > request.max_output_bytes:
            raise GuestMisbehaved("the agent inside sent more output than was asked for")
        until = until or asyncio.get_running_loop().time() + share.wait_seconds
        with not_counted(limit):
            give_back = await _room(share, channel, ran, until)
        return await _printed(channel, ran, process_id, give_back)

    return await within(seconds, pool.repeat(act), f"command {process_id}", limit)


async def _room(share: Share, channel: Channel, ran: wire.Ran, until: float) -> Callable[[], None]:
    try:
        return await share.take(ran.stdout + ran.stderr, until)
    except Unavailable:
        channel.abort()  # the output is still to come on it
        raise


async def _printed(
    channel: Channel, ran: wire.Ran, process_id: str, give_back: Callable[[], None]
) -> ExecResult:
    """What it printed; the room for it is given back when nobody has the result any more."""
    try:
        output = await channel.whole_body(ran.stdout + ran.stderr)
        result = translate.result(process_id, ran, output)
    except BaseException:
        give_back()
        raise
    weakref.finalize(result, give_back).atexit = False
    return result
