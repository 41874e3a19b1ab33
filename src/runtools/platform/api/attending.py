"""Waiting for an outcome as long as whoever asked is there, and may be told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from runtools.errors import Unauthenticated
from runtools.platform.api.callers.door import BELIEVED_SECONDS
from runtools.platform.api.calls import Call
from runtools.platform.kit.http import until_gone

T = TypeVar("T")


async def attended(request: Request, call: Call, outcome: Coroutine[Any, Any, T]) -> T:
    """What the request waits for. What it has made by now stands, however the wait ends.

    Raises:
        Unauthenticated: the caller's rights ended, or are others, meanwhile.
        ClientDisconnect: the caller went away.
    """
    call.stands = True
    coming = asyncio.create_task(outcome)
    gone = asyncio.create_task(until_gone(request.receive))
    try:
        while True:
            await asyncio.wait(
                (coming, gone), timeout=BELIEVED_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not await call.platform.door.still_good(call.who):
                raise Unauthenticated(
                    "the key or session was revoked, or its rights are others, while this waited",
                    hint="nothing that was begun ends by it; ask anew",
                )
            if coming.done():
                return coming.result()
            if gone.done():
                raise ClientDisconnect
    finally:
        coming.cancel()
        gone.cancel()
        await asyncio.gather(coming, gone, return_exceptions=True)
