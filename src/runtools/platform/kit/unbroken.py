"""Work that must not be left half-way, whoever is cancelled while he waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(act: Coroutine[Any, Any, T]) -> T:
    """Have something done. Whoever is cancelled meanwhile, be it twice, is so only when it is over."""
    task = asyncio.ensure_future(act)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # there is nobody left to hear of it
    raise cancelled
